package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/launch"
	"github.com/plyfs/plyfs/cmd/plyfs/mountopt"
	"github.com/plyfs/plyfs/overlay/fusefs"
)

// logVariable names a file for the daemon's messages.
const logVariable = "PLYFS_LOG"

// A daemon is started with as many as the server needs: what is below zero is no uint.
const _ = uint(launch.MinProcs - fusefs.MinProcs)

// startDaemon starts this program again as the daemon of a mount. Tests, which are another program, replace it.
var startDaemon = launch.Start

// serveAsDaemon is what the started program does: serve, with messages to
// standard error (the log), and until the mount is ready also to whoever waits for it.
func serveAsDaemon(o *mountopt.Options, mountpoint string) error {
	if err := logTo(o.Log); err != nil {
		return err
	}
	// A terminal's ^C goes to the foreground group; we left it, but not on purpose
	// of whoever closes the terminal.
	signal.Ignore(unix.SIGHUP)
	s := &service{options: o, mountpoint: mountpoint, stamp: true, relay: launch.Say}
	return s.serve(func() error {
		s.mute()
		return launch.Ready()
	})
}

// serveHere serves in this process, with messages to standard error.
func serveHere(o *mountopt.Options, mountpoint string) error {
	s := &service{options: o, mountpoint: mountpoint, stamp: o.Log != ""}
	if o.Log == "" {
		return s.serve(func() error { return nil })
	}
	// Why it failed is said to whoever started it, too.
	terminal, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		defer func() { _ = unix.Dup2(terminal, 2) }()
	}
	if err := logTo(o.Log); err != nil {
		return err
	}
	if err := s.serve(func() error { return nil }); err != nil {
		s.say("%s", oneLine(err.Error()))
		return err
	}
	return nil
}

// logTo makes a file, if one is named, standard error.
func logTo(path string) error {
	if path == "" {
		return nil
	}
	log, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	return unix.Dup2(int(log.Fd()), 2)
}
