package main

import (
	"errors"

	"github.com/plyfs/plyfs/layer/store"
)

var startCmd = command{
	name:  "start",
	args:  "CONTAINER...",
	short: "run the command of a container again, on the writable layer it has",
	long: `A container whose daemon was killed is mended first. One that runs already is left
alone. With --attach the exit code is the command's, and 125 if plyfs failed.`,
	run: runStart,
}

func runStart(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	attach := f.BoolP("attach", "a", false, "wait for the command, with standard output and error")
	stdin := f.BoolP("interactive", "i", false, "with standard input, too")
	asJSON := f.Bool("json", false, "print JSON")
	if err := c.parse(f, args, 1, -1); err != nil {
		return err
	}
	o := startOptions{attach: *attach || *stdin, stdin: *stdin}
	if f.NArg() > 1 && o.attach {
		return usagef("start: --attach takes one container")
	}
	if *asJSON && o.attach {
		return usagef("start: --json is not for --attach: what the command prints is printed")
	}
	s, err := openStore(*root)
	if err != nil {
		if o.attach {
			return ours(err)
		}
		return err
	}
	said := &report{json: *asJSON, store: s, entries: []psEntry{}}
	err = eachName(f.Args(), "start", func(name string) error {
		box, err := s.Container(name)
		if err != nil {
			return err
		}
		if err := wantTerminal("start", o.stdin, box.Terminal); err != nil {
			return err
		}
		err = start(s, box, o)
		for !o.attach && errors.Is(err, store.ErrRunning) {
			var runs bool
			if runs, err = awaitRunning(s, box); err == nil && !runs {
				err = start(s, box, o)
			}
		}
		if err == nil && !o.attach {
			err = said.add(box)
		}
		return err
	})
	if o.attach {
		return ours(err)
	}
	return said.end(err)
}

// awaitRunning waits for the command of a container that is live; false if it ended, or only showed its view to a commit.
func awaitRunning(s *store.Store, c *store.Container) (bool, error) {
	session, err := dialLive(s, c)
	if err != nil || session == nil {
		return false, err
	}
	defer session.Close()
	if session.Running() == nil {
		return true, nil
	}
	session.WaitGone()
	return false, nil
}
