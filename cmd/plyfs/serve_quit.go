package main

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay/fusefs"
)

// errPinned: the mount is gone from here, and lives on in another mount namespace.
var errPinned = errors.New("another mount namespace still has a copy of the mount: the writable layer was left as it is")

// errAway: a second signal, for a mount that cannot be found.
var errAway = errors.New("the mount is not where it was: ended without it, the writable layer was left as it is")

// takeAway ends the mount of a container whose command has ended. Somebody on the host
// may still use it; they lose it, with nothing of what they wrote.
func (s *service) takeAway(server *fusefs.Server, served <-chan error) error {
	var err error
	for until := time.Now().Add(time.Second); ; time.Sleep(5 * time.Millisecond) {
		if err = server.Unmount(); !errors.Is(err, unix.EBUSY) || time.Now().After(until) {
			break
		}
	}
	if errors.Is(err, unix.EBUSY) {
		s.say("%s is in use by somebody outside of the container; taken away all the same", s.mountpoint)
		syncMount(s.mountpoint)
		err = unix.Unmount(s.mountpoint, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: somebody was faster
		return err
	}
	select {
	case err := <-served:
		return err
	case <-time.After(10 * time.Second):
		return errPinned
	}
}

// syncMount has the kernel write what it gathered for a mount.
func syncMount(path string) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_ = unix.Syncfs(fd)
	unix.Close(fd)
}
