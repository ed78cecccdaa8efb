package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/mounts"
	"github.com/plyfs/plyfs/overlay/fusefs"
)

// A live mount is asked through extended attributes that every file of it answers; see
// overlay/fusefs/control.go for the other end.

// place is a file of a mount.
type place struct {
	path string // where this process finds it
	name string // what the user calls it
}

// at is a place that the user gave as a path.
func at(path string) place { return place{path, path} }

// in is the place of that name in the directory p.
func (p place) in(base string) place {
	return place{filepath.Join(p.path, base), filepath.Join(p.name, base)}
}

// ask gets a control attribute of a file, which is not followed if it is a symlink.
func ask(p place, attr string, into any) error {
	buf := make([]byte, 64<<10)
	n, err := getxattr(p.path, attr, buf)
	if err != nil {
		return controlError(p.name, err)
	}
	answer, err := fusefs.Unpack(buf[:n])
	if err == nil {
		err = json.Unmarshal(answer, into)
	}
	if err != nil {
		return fmt.Errorf("%s: the daemon's answer to %s: %w", p.name, attr, err)
	}
	return nil
}

// getxattr is Lgetxattr for a daemon that may never answer.
func getxattr(path, attr string, buf []byte) (n int, err error) {
	err = interruptibly(func() error {
		n, err = unix.Lgetxattr(path, attr, buf)
		for err == unix.EINTR {
			n, err = unix.Lgetxattr(path, attr, buf)
		}
		return err
	})
	return n, err
}

// interruptibly calls f, which may wait for ever for a filesystem that does not answer. A thread that waits for one has no
// use for a signal, but the kernel may choose it to take ^C, and then no handler runs: so it takes none, and another
// thread of the process does.
func interruptibly(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var ends, before unix.Sigset_t
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT} {
		ends.Val[0] |= 1 << (sig - 1)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &ends, &before); err != nil {
		return err
	}
	err := f()
	if e := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); err == nil {
		err = e
	}
	return err
}

var errNoMount = errors.New("not in a plyfs mount")

func controlError(name string, err error) error {
	switch err {
	case unix.ENODATA, unix.EOPNOTSUPP:
		return fmt.Errorf("%s: %w", name, errNoMount)
	case unix.EPERM:
		return fmt.Errorf("%s: only root and the owner of the mount may ask that", name)
	case unix.ENOTCONN, unix.ECONNABORTED: // aborted: it died while it was asked
		return fmt.Errorf("%s: %w; plyfs umount takes the mount point away", name, fusefs.ErrDead)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// mountStat is plyfs.stat as this command fills it.
type mountStat struct {
	fusefs.Stat
	Union struct {
		Daemon about           `json:"daemon"`
		Core   json.RawMessage `json:"core"`
	} `json:"union"`
}

// plyfsMounts returns the mount points of plyfs, as this process sees them, in the
// order of mounting.
func plyfsMounts() ([]string, error) {
	table, err := mounts.Table()
	var points []string
	for _, m := range table {
		if m.Type == mounts.Plyfs {
			points = append(points, m.Point)
		}
	}
	return points, err
}
