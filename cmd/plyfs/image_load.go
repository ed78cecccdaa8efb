package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/store"
)

var imageLoadCmd = command{
	name:  "image load",
	args:  "[PATH...]",
	short: "bring in an OCI layout, a docker archive, a root filesystem",
	long: `PATH is an OCI image layout (a directory or a tar file), an archive of docker save,
a plain root filesystem (a tar file or a directory), or - for standard input, which
is also read if no PATH is given and something is connected to it. Archives may be compressed
with gzip or zstd. Everything is checked against its digest. An image of a layout that has only a tag
is called after the file; a root filesystem has no name without --name.`,
	run: runImageLoad,
}

var imagePullCmd = command{
	name:  "image pull",
	args:  "NAME...",
	short: "bring in an image from a registry",
	long: `NAME is HOST/PATH:TAG or HOST/PATH@sha256:DIGEST (with a tag before the @, too, which
then says nothing). Without HOST it is Docker Hub's. Credentials are those of docker login and podman login.`,
	run: runImagePull,
}

// loadFlags are those of load and pull.
type loadFlags struct {
	root, platform, name *string
	quiet, json          *bool
}

func addLoadFlags(f *pflag.FlagSet) *loadFlags {
	return &loadFlags{
		platform: f.String("platform", "", "of an image for several, take that for `os/arch[/variant]`; a root filesystem is said to be for it (default: this machine's)"),
		name:     f.StringP("name", "n", "", "`name` for the image (default: those it comes with)"),
		quiet:    f.BoolP("quiet", "q", false, "print only the id"),
		json:     f.Bool("json", false, "print JSON"),
		root:     storeFlag(f),
	}
}

func (l *loadFlags) wanted() (*image.Platform, error) {
	if *l.platform == "" {
		return nil, nil
	}
	p, err := image.ParsePlatform(*l.platform)
	if err != nil {
		return nil, usageError{err}
	}
	return p, nil
}

func runImageLoad(c *command, args []string) error {
	f := c.flags()
	l := addLoadFlags(f)
	plain := f.Bool("rootfs", false, "take it for a root filesystem, whatever is in it")
	input := f.StringArrayP("input", "i", nil, "`PATH`, as an argument")
	if err := c.parse(f, args, 0, -1); err != nil {
		return err
	}
	paths := append(*input, f.Args()...)
	if len(paths) == 0 {
		if st, err := os.Stdin.Stat(); err != nil || st.Mode()&os.ModeCharDevice != 0 { // a terminal, or nothing
			return usagef("%s: usage: %s", c.name, c.usage())
		}
		paths = []string{"-"}
	}
	p, err := l.wanted()
	if err != nil {
		return err
	}
	if slices.Contains(paths, "-") && term.IsTerminal(int(os.Stdin.Fd())) {
		return usagef("image load: an archive does not come from a terminal; name a file, or use < FILE")
	}
	return l.each(c.name, paths, func(ctx context.Context, s *store.Store, path string) (*image.Source, error) {
		src, err := image.Open(ctx, path, image.OpenOptions{Platform: p, Temp: s.Path("staging"), Plain: *plain})
		if err == nil && src.Kind == image.RootDir {
			if err = apart(s, path); err != nil {
				src.Close()
			}
		}
		return src, err
	})
}

func runImagePull(c *command, args []string) error {
	f := c.flags()
	l := addLoadFlags(f)
	plain := f.Bool("plain-http", false, "ask without TLS")
	if err := c.parse(f, args, 1, -1); err != nil {
		return err
	}
	p, err := l.wanted()
	if err != nil {
		return err
	}
	return l.each(c.name, f.Args(), func(ctx context.Context, _ *store.Store, ref string) (*image.Source, error) {
		if _, err := store.ParseReference(ref); err != nil {
			return nil, err
		}
		return image.Pull(ctx, ref, image.PullOptions{Platform: p, PlainHTTP: *plain})
	})
}

// apart refuses a directory that has the store in it: it would be loaded into itself.
func apart(s *store.Store, path string) error {
	dir, err1 := filepath.EvalSymlinks(path)
	root, err2 := filepath.EvalSymlinks(s.Root())
	if errors.Join(err1, err2) != nil {
		return nil // whoever opens it says why
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(dir, root); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		return fmt.Errorf("%s: the store, %s, is in it and would be loaded into itself: use --root with one elsewhere", path, s.Root())
	}
	return nil
}

// each brings in the images of every source, and prints them. what is the command.
func (l *loadFlags) each(what string, args []string, open func(ctx context.Context, s *store.Store, arg string) (*image.Source, error)) error {
	if *l.name != "" && len(args) > 1 {
		return usagef("%s: one name for several images; load them without --name", what)
	}
	if *l.name != "" {
		if _, err := store.ParseName(*l.name); err != nil {
			return err
		}
	}
	s, err := openStore(*l.root)
	if err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	all := []*store.Image{}
	err = eachName(args, what, func(arg string) (err error) {
		defer func() {
			if err != nil && ctx.Err() != nil {
				err = exitCode(exitFailed) // said once, below
			}
		}()
		if err := ctx.Err(); err != nil {
			return err
		}
		src, err := open(ctx, s, arg)
		if err != nil {
			return s.Explain(err)
		}
		defer src.Close()
		if *l.name != "" && len(src.Images) > 1 {
			return usagef("%s: %s has %d images: one name for several; load them without --name", what, arg, len(src.Images))
		}
		for _, in := range src.Images {
			img, err := l.add(ctx, s, in, arg)
			if err != nil {
				return fmt.Errorf("%s: %w", arg, err)
			}
			all = append(all, img)
		}
		return nil
	})
	err = interrupted(ctx, what, err)
	if *l.json && (err == nil || len(all) > 0) {
		if e := printJSON(all); err == nil {
			err = e
		}
	}
	return err
}

func (l *loadFlags) add(ctx context.Context, s *store.Store, in *image.Image, source string) (*store.Image, error) {
	names := in.Names
	if *l.name != "" {
		names = []string{*l.name}
	}
	for _, n := range names {
		if _, err := store.ParseReference(n); err != nil {
			return nil, fmt.Errorf("%w; --name gives it another", err)
		}
	}
	o := store.AddOptions{Names: names, Source: source}
	var bar *layerProgress
	if !*l.quiet && !*l.json {
		bar = &layerProgress{}
		o.Progress = bar
	}
	img, err := s.Add(ctx, in, o)
	if bar != nil {
		bar.end()
	}
	if err != nil {
		return nil, err
	}
	if here := image.Host(); *l.platform == "" && img.Arch != "" && !here.Runs(img.OS, img.Arch, img.Variant) {
		fmt.Fprintf(os.Stderr, "plyfs: warning: image %s is for %s, and this machine is %s\n", img.Name(), platformText(img), here)
	}
	switch {
	case *l.json:
	case *l.quiet:
		fmt.Fprintln(stdout, img.ID)
	default:
		for _, layer := range img.Layers {
			for _, note := range layer.Notes {
				fmt.Fprintln(os.Stderr, "plyfs: "+oneLine(note))
			}
		}
		name := strings.Join(names, ", ")
		if name == "" {
			name = noName
		}
		layers := "1 layer"
		if n := len(img.Layers); n != 1 {
			layers = fmt.Sprintf("%d layers", n)
		}
		fmt.Fprintf(stdout, "%s  %s  %s, %s\n", name, store.ShortID(img.ID), layers, bytesText(img.Size))
	}
	return img, nil
}

// noName stands for the name of an image without.
const noName = "<none>"

// layerProgress shows one layer after the other: a bar on a terminal, otherwise lines.
type layerProgress struct {
	now        *progress
	line       string
	done, size int64
}

// Layer implements store.Progress.
func (p *layerProgress) Layer(n, total int, id string, size int64) {
	p.end()
	p.line = fmt.Sprintf("layer %d of %d", n, total)
	if id != "" {
		p.line += " " + store.ShortID(id)
	}
	p.now, p.done, p.size = newProgress(os.Stderr, p.line), 0, size
}

// Read implements store.Progress.
func (p *layerProgress) Read(n int) {
	p.done += int64(n)
	if p.now != nil && p.size > 0 {
		p.now.at(p.done, p.size)
	}
}

// Done implements store.Progress.
func (p *layerProgress) Done(had bool) {
	p.end()
	what := "unpacked"
	if had {
		what = "was there"
	}
	fmt.Fprintf(os.Stderr, "%s: %s\n", p.line, what)
}

func (p *layerProgress) end() {
	if p.now != nil {
		p.now.end()
	}
	p.now = nil
}
