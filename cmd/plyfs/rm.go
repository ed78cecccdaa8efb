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
	asJSON := f.Bool("json", false, "print JSON")
	if err := c.parse(f, args, 1, -1); err != nil {
		return err
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	return removeEach(f.Args(), "rm", *asJSON, func(name string) (bool, error) {
		box, err := s.ContainerToRemove(name)
		if *force && errors.Is(err, store.ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return true, removeContainer(s, box, *force, *volumes)
	})
}

// removeEach runs remove for every name and prints those that it removed: each as soon as it is gone, or in one array of
// JSON.
func removeEach(names []string, what string, asJSON bool, remove func(name string) (bool, error)) error {
	gone := []string{}
	err := eachName(names, what, func(name string) error {
		removed, err := remove(name)
		switch {
		case err != nil || !removed:
			return err
		case asJSON:
			gone = append(gone, name)
		default:
			fmt.Fprintln(stdout, name)
		}
		return nil
	})
	if asJSON {
		return errors.Join(printJSON(gone), err)
	}
	return err
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
