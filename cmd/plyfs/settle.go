package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay/fusefs"
)

var settleCmd = command{
	name:  "settle",
	args:  "MOUNTPOINT | CONTAINER",
	short: "complete the files of which only a range was copied up",
	long: `A write to a large lower file copies only the range it touches; the rest follows when
the mount is idle, or at unmount, or now. Afterwards the upper can be used without the
lower directories' old contents, and by the kernel's overlayfs. --json tells how many files
and bytes were to be completed, and how many files still are.
` + containerArgument + ` It need not run.`,
	run: runSettle,
}

// settled is what plyfs settle has to say.
type settled struct {
	Files      int    `json:"files"`           // that were unfinished before
	Bytes      *int64 `json:"bytes,omitempty"` // that they lacked; not known of those of an earlier mount
	Unfinished int    `json:"unfinished"`      // files that still are, or are again
}

func runSettle(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	quiet := f.BoolP("quiet", "q", false, "no progress")
	asJSON := f.Bool("json", false, "print JSON, and no progress")
	if err := c.parse(f, args, 1, 1); err != nil {
		return err
	}
	return c.on(f, *root, keepShow, func(p place) error {
		if *asJSON {
			return settleJSON(p)
		}
		return settle(p, !*quiet)
	})
}

// settleJSON settles, and prints what there was to do.
func settleJSON(p place) error {
	before, err := askCore(p)
	if err != nil {
		return err
	}
	failed := settle(p, false)
	after, err := askCore(p)
	if err != nil {
		return errors.Join(failed, err)
	}
	s := settled{Files: before.Unfinished, Unfinished: after.Unfinished}
	if before.UnfinishedBytes >= 0 {
		s.Bytes = &before.UnfinishedBytes
	}
	return errors.Join(failed, printJSON(s))
}

// settle waits until the mount has no partly copied file. With progress it shows how far that is:
// on a terminal a bar, else a line now and then.
func settle(p place, progress bool) error {
	done := make(chan error, 1)
	go func() {
		err := ask(p, fusefs.CtlSettle, &struct{}{})
		if errors.Is(err, unix.EIO) {
			err = fmt.Errorf("%s: not all partly copied files can be completed; plyfs check lists them, the daemon's log (--log) says why", p.name)
		}
		done <- err
	}()
	if !progress {
		return <-done
	}
	show := newProgress(os.Stderr, "completing partly copied files")
	defer show.end()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			if core, err := askCore(p); err == nil && core.Settling != nil {
				show.at(core.Settling.Done, core.Settling.Total)
			}
		}
	}
}
