package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/plyfs/plyfs/cow/bench"
	"github.com/plyfs/plyfs/cow/bench/rig"
	"github.com/plyfs/plyfs/cow/bench/sample"
)

var benchCmd = command{
	name:  "bench",
	args:  "copyup",
	short: "measure what copy-up costs, beside other filesystems",
	long: `Changes files of a lower layer for the first time, of many sizes and in many ways, on
plyfs in each of its methods and on the filesystems that are there: a plain copy, the
kernel's overlayfs, fuse-overlayfs, unionfs-fuse. Nothing is left behind, also when
interrupted. With --filesystem (as root) it works on a new filesystem in a loop image.`,
	run: runBench,
}

func runBench(c *command, args []string) error {
	f := c.flags()
	quick := f.Bool("quick", false, "few sizes, two rounds: a minute")
	fstype := f.String("filesystem", "", "make one of "+strings.Join(rig.Filesystems, ", ")+" and measure on that")
	dir := f.String("dir", "", "where to work, else $TMPDIR or /tmp")
	rounds := f.Int("rounds", 0, "rounds, else 5")
	largest := f.String("largest", "", "no file larger than this, else 4G")
	targets := f.Bool("targets", false, "only what plyfs has promised, some minutes; see docs/copy-up.md")
	match := f.String("cases", "", "only the cases whose \"group: name\" matches this regular expression")
	who := f.String("peers", "", "only the filesystems whose names match this regular expression")
	jsonTo := f.String("json", "", "write all results as JSON to this file")
	csvTo := f.String("csv", "", "as CSV")
	goTo := f.String("gobench", "", "as Go benchmarks, for benchstat")
	htmlTo := f.String("html", "", "as one HTML page with plots")
	svgTo := f.String("svg", "", "the plots alone, as files in this directory")
	cpu := f.Int("cpu", -1, "run everything on this processor alone")
	own := customFlags(f)
	if err := c.parse(f, args, 1, 1); err != nil {
		return err
	}
	if f.Arg(0) != "copyup" {
		return usagef("bench: %q is no benchmark: usage: %s", f.Arg(0), c.usage())
	}
	o := bench.Options{Quick: *quick, Targets: *targets, Rounds: *rounds}
	var err error
	if o.Custom, err = own(); err != nil {
		return usageError{err}
	}
	if *largest != "" {
		var err error
		if o.Largest, err = sample.ParseBytes(*largest); err != nil {
			return usageError{err}
		}
	}
	for _, only := range []struct {
		pattern string
		to      *func(string) bool
	}{{*match, &o.Match}, {*who, &o.Peer}} {
		if only.pattern == "" {
			continue
		}
		re, err := regexp.Compile(only.pattern)
		if err != nil {
			return usageError{err}
		}
		*only.to = re.MatchString
	}
	if _, err := bench.Cases(&o, *fstype); err != nil {
		return usageError{err}
	}
	cell, code, err := rig.Enter(rig.CellOptions{Dir: *dir, CPU: *cpu})
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	if cell == nil {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	rep, err := measure(ctx, cell, *fstype, o)
	if err != nil {
		return err
	}
	if err := rep.WriteTable(os.Stdout); err != nil {
		return err
	}
	return errors.Join(
		writeTo(*jsonTo, func(w io.Writer) error { return printJSONTo(w, rep) }),
		writeTo(*csvTo, rep.WriteCSV), writeTo(*goTo, rep.WriteGoBench), writeTo(*htmlTo, rep.WriteHTML),
		writeSVG(*svgTo, rep))
}

func measure(ctx context.Context, cell *rig.Cell, fstype string, o bench.Options) (rep *bench.Report, err error) {
	at := bench.Place{Dir: cell.Scratch}
	if fstype != "" {
		if !cell.Root {
			return nil, errors.New("bench: --filesystem needs root: it mounts an image")
		}
		size := int64(12) << 30
		if o.Quick {
			size = 3 << 30
		}
		image, err := rig.NewImage(fstype, cell.Scratch, size)
		if err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
		defer func() { err = errors.Join(err, image.Close()) }()
		at = bench.Place{Dir: image.Dir, Image: image, Apart: cell.Scratch}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		o.Progress = func(done, total int, what string) {
			const width = 30
			full := done * width / total
			fmt.Fprintf(os.Stderr, "\r[%s%s] %3d %%  %-40.40s", strings.Repeat("#", full), strings.Repeat(".", width-full), done*100/total, what)
			if done == total {
				fmt.Fprintf(os.Stderr, "\r%-80s\r", "")
			}
		}
	}
	return bench.Run(ctx, at, bench.Peers(self), o)
}

func writeSVG(dir string, rep *bench.Report) error {
	if dir == "" {
		return nil
	}
	return rep.WriteSVG(dir)
}

// writeTo writes a file; none for an empty path, standard output for "-".
func writeTo(path string, write func(io.Writer) error) error {
	switch path {
	case "":
		return nil
	case "-":
		return write(os.Stdout)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
