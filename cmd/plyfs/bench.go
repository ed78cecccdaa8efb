package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/plyfs/plyfs/cow/bench"
	"github.com/plyfs/plyfs/cow/bench/rig"
)

var benchCmd = command{
	name:  "bench",
	args:  "copyup",
	short: "measure what copy-up costs, beside other filesystems",
	long: `Changes files of a lower layer for the first time, of many sizes and in many ways, on
plyfs in each of its methods and on the filesystems that are there: a plain copy, the
kernel's overlayfs, fuse-overlayfs, unionfs-fuse. Nothing is left behind, also when
interrupted; what was measured until then is printed. With --filesystem (as root) it works on
a new filesystem in a loop image. Files with results are written when all is measured.`,
	run: runBench,
}

// quickTime is when --quick begins no round any more: what is begun, and cleaning up, is to end within a minute.
const quickTime = 50 * time.Second

var enterCell = rig.Enter // tests have none

func runBench(c *command, args []string) error {
	started := time.Now()
	f := c.flags()
	flags := newBenchFlags(f)
	if err := c.parse(f, args, 1, 1); err != nil {
		return err
	}
	if f.Arg(0) != "copyup" {
		return usagef("bench: %q is no benchmark: usage: %s", f.Arg(0), c.usage())
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	peers := bench.Peers(self)
	o, err := flags.options(peers)
	if err != nil {
		return err
	}
	if o.Quick && o.Rounds == 0 {
		o.Deadline = started.Add(quickTime)
	}
	if err := flags.files.check(); err != nil {
		return err
	}
	cell, code, err := enterCell(rig.CellOptions{Dir: *flags.dir, CPU: *flags.cpu})
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	if cell == nil {
		os.Exit(code)
	}
	ctx, stop := interruptible()
	defer stop()
	rep, err := measure(ctx, cell, *flags.filesystem, peers, o)
	if rep != nil && (err != nil || !flags.files.standard()) { // also what there is of an interrupted run
		if e := rep.WriteTable(os.Stdout); err == nil {
			err = e
		}
	}
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return flags.files.write(rep)
}

// measure measures, on a filesystem that is made for it if one is named.
func measure(ctx context.Context, cell *rig.Cell, fstype string, peers []*rig.Peer, o bench.Options) (rep *bench.Report, err error) {
	at := bench.Place{Dir: cell.Scratch, User: !cell.Root}
	if fstype != "" {
		if !cell.Root {
			return nil, errors.New("--filesystem needs root: it mounts an image")
		}
		size := int64(12) << 30
		if o.Quick && o.Custom == nil && o.Largest == 0 {
			size = 3 << 30
		}
		image, err := rig.NewImage(fstype, cell.Scratch, size)
		if err != nil {
			if bench.Ended(ctx) { // and mkfs with it
				err = errors.New("interrupted before anything was measured")
			}
			return nil, err
		}
		defer func() { err = errors.Join(err, image.Close()) }()
		at = bench.Place{Dir: image.Dir, Image: image, Apart: cell.Scratch}
	}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		o.Progress = benchProgress
		defer fmt.Fprintf(os.Stderr, "\r%-80s\r", "")
	}
	return bench.Run(ctx, at, peers, o)
}

func benchProgress(done, total int, what string) {
	const width = 30
	full := done * width / total
	fmt.Fprintf(os.Stderr, "\r[%s%s] %3d %%  %-40.40s", strings.Repeat("#", full), strings.Repeat(".", width-full), done*100/total, what)
}
