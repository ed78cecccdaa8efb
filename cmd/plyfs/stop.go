package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

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
	asJSON := f.Bool("json", false, "print JSON")
	if err := c.parse(f, args, 1, -1); err != nil {
		return err
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	said := &report{json: *asJSON, store: s, entries: []psEntry{}}
	return said.end(eachName(f.Args(), "stop", func(name string) error {
		box, err := s.Container(name)
		if err != nil {
			return err
		}
		if err := stop(s, box, *timeout, false); err != nil {
			return err
		}
		return said.add(box)
	}))
}

// stop ends a container and waits until its daemon has tidied up. One that does not run is
// left alone. With discard its changes are not wanted any more.
func stop(s *store.Store, c *store.Container, seconds int, discard bool) error {
	session, err := dialLive(s, c)
	if err != nil || session == nil {
		return err
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

// dialLive connects to the keeper of a container; nil if it has none. One that starts has no socket yet, and one that ends
// has none any more: both are waited for.
func dialLive(s *store.Store, c *store.Container) (*keeper.Session, error) {
	for until := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		session, err := keeper.Dial(s.ContainerPath(c))
		if err == nil {
			return session, nil
		}
		if !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("container %s: %w", c.Name, err)
		}
		st, err := s.State(c)
		switch {
		case err != nil || !st.Status.Live():
			return nil, err
		case st.Status == store.Mounted:
			return nil, st.MountedError(c)
		case time.Now().After(until):
			return nil, silentError(s, c)
		}
	}
}
