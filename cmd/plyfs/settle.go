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
	args:  "MOUNTPOINT",
	short: "complete the files of which only a range was copied up",
	long: `A write to a large lower file copies only the range it touches; the rest follows when
the mount is idle, or at unmount, or now. Afterwards the upper can be used without the
lower directories' old contents, and by the kernel's overlayfs.`,
	run: func(c *command, args []string) error {
		f := c.flags()
		quiet := f.BoolP("quiet", "q", false, "no progress")
		if err := c.parse(f, args, 1, 1); err != nil {
			return err
		}
		return settle(f.Arg(0), !*quiet)
	},
}

// settle waits until the mount has no partly copied file. With progress it shows how far that is:
// on a terminal a bar, else a line now and then.
func settle(path string, progress bool) error {
	done := make(chan error, 1)
	go func() {
		err := ask(path, fusefs.CtlSettle, &struct{}{})
		if errors.Is(err, unix.EIO) {
			err = fmt.Errorf("%s: not all partly copied files can be completed; the daemon's log says which, and why", path)
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
			if core, err := askCore(path); err == nil && core.Settling != nil {
				show.at(core.Settling.Done, core.Settling.Total)
			}
		}
	}
}
