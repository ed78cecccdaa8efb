package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer/store"
	"github.com/plyfs/plyfs/overlay/fusefs"
)

var umountCmd = command{
	name:  "umount",
	args:  "MOUNTPOINT | CONTAINER ...",
	short: "end a mount and wait until its upper is complete",
	long: `Partly copied files are completed first. When the command returns, the daemon is
gone and the layers can be used for something else. If a file cannot be completed, it
says so, unmounts, and ends with 1. A mount whose daemon died is taken away. A container
that is mounted (plyfs mount --container) is known by its name, too.`,
	run: runUmount,
}

func runUmount(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	lazy := f.BoolP("lazy", "l", false, "take it out of sight at once, also while it is in use")
	if err := c.parse(f, args, 1, -1); err != nil {
		return err
	}
	return eachName(f.Args(), "umount", func(arg string) error {
		s, err := findSubject(*root, arg)
		switch {
		case err != nil:
			return err
		case s.box == nil:
			return umount(arg, *lazy)
		case s.dir != "" && s.dir != s.state.Mountpoint:
			return fmt.Errorf("container %s is mounted at %s in another mount namespace: unmount it there, or send SIGTERM to process %d", s.box.Name, s.state.Mountpoint, s.state.Daemon)
		case s.state.Status == store.Mounted:
			return umount(s.state.Mountpoint, *lazy)
		case s.state.Status.Live():
			return fmt.Errorf("container %s is running: plyfs stop %s ends that", s.box.Name, s.box.Name)
		}
		return fmt.Errorf("container %s is not mounted", s.box.Name)
	})
}

func umount(point string, lazy bool) error {
	abs, err := filepath.Abs(point)
	if err != nil {
		return err
	}
	// The last component is not looked at: a dead mount could not be.
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return err
	}
	path := filepath.Join(parent, filepath.Base(abs))
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	points, err := plyfsMounts()
	if err != nil {
		return err
	}
	if !slices.Contains(points, path) {
		return fmt.Errorf("%s: no plyfs is mounted there", point)
	}
	var st mountStat
	switch err := ask(place{path, point}, fusefs.CtlStat, &st); {
	case errors.Is(err, fusefs.ErrDead):
		if err := fusefs.Detach(path); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "plyfs: %s: its daemon was dead; the mount point was taken away\n", point)
		return nil
	case err != nil && !lazy:
		return err
	}
	if lazy {
		return fusefs.Detach(path)
	}
	others := findCopies(path)
	daemon := openDaemon(st.Union.Daemon.PID)
	if daemon >= 0 {
		defer unix.Close(daemon)
	}
	var incomplete error
	if d := st.Union.Daemon; d.Upper != "" && !d.NoSettle {
		// The daemon tries again at its end, but what it could not do now it hardly can then.
		if err := settle(place{path, point}, true); err != nil && !errors.Is(err, errNoMount) {
			incomplete = fmt.Errorf("unmounted, but incomplete: %w", err)
		}
	}
	err = unmountPatiently(path)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s: in use (a file is open, or somebody's working directory is in it); --lazy takes it away all the same", point)
	}
	if err != nil {
		return err
	}
	return errors.Join(waitDaemon(daemon, point, others), incomplete)
}

// Who asks a mount something, as plyfs watch does ten times a second, keeps it busy just then: "in use"
// is said only when it is after a few tries.
const (
	busyTries = 20
	busyPause = 30 * time.Millisecond
)

// unmountPatiently is fusefs.Unmount, tried again while the mount is in use.
func unmountPatiently(path string) error {
	for i := 1; ; i++ {
		err := fusefs.Unmount(path)
		if i == busyTries || !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(busyPause)
	}
}

// openDaemon returns a descriptor that becomes readable when the process ends, or -1. The
// number is the daemon's own idea of it: in another PID namespace it means
// somebody else, so the name is compared.
func openDaemon(pid int) int {
	if pid <= 0 {
		return -1
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1
	}
	theirs, err1 := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	ours, err2 := os.Stat("/proc/self/exe")
	if err1 != nil || err2 != nil || !os.SameFile(theirs, ours) {
		unix.Close(fd)
		return -1
	}
	return fd
}

// waitDaemon waits for the end of the daemon, which is when the upper is complete
// and free. It does not wait for other mount namespaces (a container's, a service's) that
// still have a copy of the mount.
func waitDaemon(fd int, point string, others *copies) error {
	if fd < 0 {
		return nil
	}
	start := time.Now()
	for said := false; ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 500)
		switch {
		case err != nil && err != unix.EINTR:
			return err
		case n > 0:
			return nil
		case !said && time.Since(start) > 5*time.Second:
			fmt.Fprintln(os.Stderr, "plyfs: unmounted; waiting for the daemon to complete the upper")
			said = true
		}
		if other := others.left(); other != "" {
			fmt.Fprintf(os.Stderr, "plyfs: %s: unmounted here, but another mount namespace still has it (%s); the daemon ends with the last of them\n", point, other)
			return nil
		}
	}
}
