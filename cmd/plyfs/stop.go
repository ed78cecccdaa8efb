package main

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/keeper"
	"github.com/plyfs/plyfs/layer/store"
)

var stopCmd = command{
	name:  "stop",
	args:  "CONTAINER...",
	short: "end the command of a container; its writable layer stays",
	long: `The command gets its stop signal (TERM, unless image or container say otherwise), and
SIGKILL when the time is up. When stop returns, the view is unmounted and the writable layer
complete. Process 1 of a container that handles no TERM does not get it: that is the kernel's rule.`,
	run: runStop,
}

func runStop(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	timeout := f.IntP("time", "t", 10, "`seconds` until SIGKILL; -1: never")
	if err := c.parse(f, args, 1, -1); err != nil {
		return err
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	return eachName(f.Args(), "stop", func(name string) error {
		box, err := s.Container(name)
		if err != nil {
			return err
		}
		if err := stop(s, box, *timeout, false); err != nil {
			return err
		}
		fmt.Println(box.Name)
		return nil
	})
}

// stop ends a container and waits until its daemon has tidied up. One that does not run is
// left alone. With discard its changes are not wanted any more.
func stop(s *store.Store, c *store.Container, seconds int, discard bool) error {
	session, err := keeper.Dial(s.ContainerPath(c))
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		st, err := s.State(c)
		if err != nil || !st.Status.Live() {
			return err
		}
		if st.Status == store.Mounted {
			return st.MountedError(c)
		}
		return waitGone(s, c) // starting, and no socket yet; or ending, and no socket any more
	}
	if err != nil {
		return fmt.Errorf("container %s: %w", c.Name, err)
	}
	defer session.Close()
	if err := session.Stop(seconds, discard); err != nil && !errors.Is(err, unix.EPIPE) {
		return fmt.Errorf("container %s: %w", c.Name, err)
	}
	_, err = session.Wait()
	var failure *keeper.Failure
	if errors.As(err, &failure) && failure.Stuck {
		return fmt.Errorf("container %s: %w", c.Name, err)
	}
	if failure != nil { // it never ran, is just ending, or its daemon was killed
		return waitGone(s, c)
	}
	return err
}
