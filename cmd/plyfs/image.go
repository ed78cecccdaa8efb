package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

var imageCmd = command{
	name:  "image",
	args:  "COMMAND",
	short: "images: load, pull, ls, inspect, tag, rm, prune, save",
	run:   runImage,
}

// imageCommands is filled at the start, because runImage needs it.
var imageCommands []*command

func init() {
	imageCommands = []*command{&imageLoadCmd, &imagePullCmd, &imageLsCmd, &imageInspectCmd, &imageTagCmd, &imageRmCmd, &imagePruneCmd, &imageSaveCmd}
}

func runImage(c *command, args []string) error {
	if len(args) > 0 {
		for _, sub := range imageCommands {
			if sub.name == "image "+args[0] {
				return sub.run(sub, args[1:])
			}
		}
		if args[0] != "-h" && args[0] != "--help" {
			return usagef("image: unknown command %q", args[0])
		}
	}
	w := io.Writer(stdout)
	if len(args) == 0 {
		w = os.Stderr
	}
	fmt.Fprint(w, "usage: plyfs image COMMAND\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, sub := range imageCommands {
		fmt.Fprintf(t, "  %s\t%s\n", strings.TrimPrefix(sub.name, "image "), sub.short)
	}
	t.Flush()
	if len(args) == 0 {
		return usagef("image: no command given")
	}
	return nil
}
