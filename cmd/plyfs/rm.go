package main

import (
	"errors"
	"fmt"

	"github.com/plyfs/plyfs/layer/store"
)

var rmCmd = command{
	name:  "rm",
	args:  "CONTAINER...",
	short: "remove containers and what they have written",
	long:  `The writable layer goes with its container. Volumes stay, unless --volumes takes the anonymous ones that no other container uses.`,
	run:   runRemove,
}

func runRemove(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	force := f.BoolP("force", "f", false, "kill a running one first; no error for one that does not exist")
	volumes := f.BoolP("volumes", "v", false, "remove its anonymous volumes too")
	if err := c.parse(f, args, 1, -1); err != nil {
		return err
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	return eachName(f.Args(), "rm", func(name string) error {
		box, err := s.ContainerToRemove(name)
		if *force && errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := removeContainer(s, box, *force, *volumes); err != nil {
			return err
		}
		fmt.Println(name)
		return nil
	})
}

// removeContainer removes a container; with force it is killed first.
func removeContainer(s *store.Store, c *store.Container, force, volumes bool) error {
	for {
		release, err := s.LockContainer(c)
		switch {
		case errors.Is(err, store.ErrRunning) && force:
			if err := stop(s, c, 0, true); err != nil {
				return err
			}
			continue
		case errors.Is(err, store.ErrRunning):
			return fmt.Errorf("%w: stop it first, or use rm -f", err)
		case errors.Is(err, store.ErrNotFound) && force:
			return nil // a container run with --rm removed itself
		case err != nil:
			return err
		}
		detachStale(s, c)
		err = s.RemoveLocked(c, volumes)
		release()
		return err
	}
}
