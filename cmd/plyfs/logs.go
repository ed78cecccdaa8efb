package main

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/plyfs/plyfs/layer/store"
)

var logsCmd = command{
	name:  "logs",
	args:  "CONTAINER",
	short: "print what a container wrote while nobody was attached",
	run:   runLogs,
}

func runLogs(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	follow := f.BoolP("follow", "f", false, "go on until the container ends")
	if err := c.parse(f, args, 1, 1); err != nil {
		return err
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	box, err := s.Container(f.Arg(0))
	if err != nil {
		return err
	}
	out, err := os.OpenFile(s.ContainerPath(box, "output"), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	for {
		// Asked before reading: what came before the end is read, then.
		st, err := s.State(box)
		gone := errors.Is(err, store.ErrNotFound)
		if err != nil && !gone {
			return err
		}
		if _, err := io.Copy(os.Stdout, out); err != nil {
			return err
		}
		if !*follow || gone || !st.Status.Live() {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
}
