package main

import (
	"os"
	"strings"

	"golang.org/x/term"
)

var imageSaveCmd = command{
	name:  "image save",
	args:  "IMAGE...",
	short: "write images as an OCI image layout",
	long: `The layout is a tar file if the name ends in .tar or is - (standard output), and a
directory otherwise. Docker, Podman, skopeo and umoci read it.`,
	run: runImageSave,
}

func runImageSave(c *command, args []string) error {
	f := c.flags()
	out := f.StringP("output", "o", "-", "`file.tar or directory` to write")
	root := storeFlag(f)
	if err := c.parse(f, args, 1, -1); err != nil {
		return err
	}
	if *out == "" {
		return usagef("image save: -o without a name; - is standard output")
	}
	if *out == "-" && term.IsTerminal(int(os.Stdout.Fd())) {
		return usagef("image save: an archive does not belong on a terminal; use -o FILE.tar")
	}
	for _, end := range []string{".gz", ".tgz", ".zst", ".xz", ".bz2"} {
		if strings.HasSuffix(*out, end) {
			return usagef("image save: %s would be a directory: an archive ends in .tar, and its layers are compressed already", *out)
		}
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	archive := *out == "-" || strings.HasSuffix(*out, ".tar")
	if st, err := os.Stat(*out); err == nil && !st.IsDir() {
		archive = true
	}
	return interrupted(ctx, c.name, s.Save(ctx, f.Args(), *out, archive))
}
