package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"

	"github.com/plyfs/plyfs/cmd/plyfs/cell"
	"github.com/plyfs/plyfs/cmd/plyfs/keeper"
	"github.com/plyfs/plyfs/layer/store"
)

var runCmd = command{
	name:  "run",
	args:  "IMAGE [COMMAND ARG...]",
	short: "run a command in a new container",
	long: `Makes a container with a writable layer of its own, mounts it, and runs the command in
it, with its own mounts, processes and host name. This makes storage visible as a container
sees it; it is no sandbox: the network is the host's, nothing limits memory or system calls,
and root in the container of a root user is root of the machine, less some capabilities.

The exit code is the command's; 125 if plyfs failed or was used wrongly, 126 if the command cannot be
executed, 127 if there is none.`,
	run: runRun,
}

// exitCode is the end of a command whose own exit code is to be ours; nothing is printed
// for it.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func runRun(c *command, args []string) error {
	var o containerFlags
	f := c.flags()
	o.add(f)
	detach := f.BoolP("detach", "d", false, "leave it running and print its name")
	asJSON := f.Bool("json", false, "with --detach: print JSON")
	if err := c.parse(f, args, 1, -1); err != nil {
		return ours(err)
	}
	if *asJSON && !*detach {
		return ours(usagef("run: --json is for --detach; else what the command prints is printed"))
	}
	if err := wantTerminal(c.name, o.stdin && !*detach, o.terminal); err != nil {
		return ours(err)
	}
	s, err := openStore(*o.root)
	if err != nil {
		return ours(err)
	}
	box, err := o.create(s, f.Arg(0), f.Args()[1:])
	if err != nil {
		return ours(err)
	}
	err = start(s, box, startOptions{attach: !*detach, stdin: o.stdin && !*detach})
	if st, e := s.State(box); e == nil && st.Status == store.Created && box.AutoRemove {
		_ = s.UndoCreate(box) // its daemon did not come so far as to do it
	}
	if err == nil && *detach {
		err = printEntry(s, box, *asJSON)
	}
	return ours(err)
}

// failedError is an error that ends the program with a code of its own.
type failedError struct {
	error
	code int
}

func (e failedError) Unwrap() error { return e.error }

// ours gives an error that is not the command's the exit code that Docker uses for that.
func ours(err error) error {
	var code exitCode
	var failure *keeper.Failure
	switch {
	case err == nil, errors.As(err, &code):
		return err
	case errors.As(err, &failure):
		return failedError{err, failure.Code}
	}
	return failedError{err, cell.CodeFailed}
}

// wantTerminal refuses to connect an input that is no terminal with one: where that input ends the command
// would wait for ever, because a program that edits lines takes no end of file from a terminal.
func wantTerminal(what string, input, terminal bool) error {
	if input && terminal && !term.IsTerminal(0) {
		return usagef("%s: standard input is no terminal, and -t with -i needs one; with -i alone the command reads it as it is", what)
	}
	return nil
}

type startOptions struct {
	attach bool // wait for the command, with our standard output and error
	stdin  bool // and input
}

// start starts a container's keeper, and with attach stays until the command has ended. The
// error is an exitCode if the command's own is not 0.
func start(s *store.Store, c *store.Container, o startOptions) error {
	files, done, err := stdio(s, c, o)
	defer done()
	if err != nil {
		return err
	}
	session, err := startKeeper(s, c, files, keepRun)
	if err != nil {
		return err
	}
	defer session.Close()
	if o.attach {
		defer session.ForwardSignals()()
	}
	if err := session.Started(); err != nil {
		return err
	}
	if !o.attach {
		return nil
	}
	code, err := session.Relay(o.stdin)
	if err == nil && code != 0 {
		err = exitCode(code)
	}
	return err
}

// stdio returns the command's standard input, output and error for a start, and what to close
// when they are handed over.
func stdio(s *store.Store, c *store.Container, o startOptions) (files [3]*os.File, done func(), err error) {
	var opened []*os.File
	done = func() {
		for _, f := range opened {
			f.Close()
		}
	}
	open := func(path string, flags int) *os.File {
		if err != nil {
			return nil
		}
		var f *os.File
		if f, err = os.OpenFile(path, flags, 0o600); err == nil {
			opened = append(opened, f)
		}
		return f
	}
	if o.attach {
		files = [3]*os.File{nil, os.Stdout, os.Stderr}
		if files[0] = os.Stdin; !o.stdin {
			files[0] = open(os.DevNull, os.O_RDONLY)
		}
		return files, done, err
	}
	out := open(s.ContainerPath(c, "output"), os.O_WRONLY|os.O_APPEND|os.O_CREATE)
	if c.Stdin {
		// Input that never comes and never ends: a pipe whose reader is its writer too.
		read, write, e := os.Pipe()
		if e != nil {
			done()
			return files, done, e
		}
		opened = append(opened, read, write)
		both := open(fmt.Sprintf("/proc/self/fd/%d", read.Fd()), os.O_RDWR)
		return [3]*os.File{both, out, out}, done, err
	}
	return [3]*os.File{open(os.DevNull, os.O_RDONLY), out, out}, done, err
}
