package main

import (
	"fmt"
	"os"

	"github.com/plyfs/plyfs/cmd/plyfs/lab"
)

var demoCmd = command{
	name:  "demo",
	short: "show on a small example how layers work",
	long: `Makes three layers in a temporary directory, mounts them, looks around, changes a few
things, shows where the changes went, and takes everything away again. plyfs lab has
exercises to do yourself.`,
	run: runDemo,
}

func runDemo(c *command, args []string) error {
	f := c.flags()
	if err := c.parse(f, args, 0, 0); err != nil {
		return err
	}
	if err := lab.Tour(os.Stdout); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}
