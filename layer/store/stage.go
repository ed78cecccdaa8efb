package store

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// Stage is a directory in staging/, for something that is not finished. It exists until Close, or until the end of the process and the next Open.
type Stage struct {
	// Dir is the directory's path.
	Dir string
	fd  int
	s   *Store
}

// Stage makes an empty directory in staging/. kind is for people who look.
func (s *Store) Stage(kind string) (*Stage, error) {
	for {
		dir, err := os.MkdirTemp(s.Path("staging"), kind+"-*")
		if err != nil {
			return nil, err
		}
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err == nil {
			if err = flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == nil && same(fd, dir) {
				return &Stage{Dir: dir, fd: fd, s: s}, nil
			}
			unix.Close(fd)
		}
		// Somebody's sweep came between the making and the locking.
		if err != nil && err != unix.ENOENT && err != unix.EWOULDBLOCK {
			return nil, &os.PathError{Op: "stage", Path: dir, Err: err}
		}
	}
}

// FD returns a descriptor of the directory, valid until Close.
func (g *Stage) FD() int { return g.fd }

// Sync puts everything in the stage on disk.
func (g *Stage) Sync() error {
	if err := unix.Syncfs(g.fd); err != nil {
		return &os.PathError{Op: "sync", Path: g.Dir, Err: err}
	}
	return nil
}

// Close removes the directory and everything that is still in it.
func (g *Stage) Close() error {
	if g.fd < 0 {
		return nil
	}
	err := removeTree(g.Dir)
	unix.Close(g.fd)
	g.fd = -1
	return err
}

// sweep removes the stages nobody holds. What cannot be removed (by a plain
// user, outside of the user namespace that made it) waits for somebody who can.
func (s *Store) sweep() {
	entries, err := os.ReadDir(s.Path("staging"))
	if err != nil {
		return
	}
	for _, e := range entries {
		path := s.Path("staging", e.Name())
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		if flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil && same(fd, path) {
			_ = removeTree(path)
		}
		unix.Close(fd)
	}
	if s.hasStale(s.root) || s.hasStale(s.Path("images")) {
		_ = s.Update(func() error {
			removeStale(s.root)
			removeStale(s.Path("images"))
			return nil
		})
	}
}

// removeStale removes half-written records from a directory. The caller holds the lock without which nobody writes one there.
func removeStale(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix) {
			_ = os.Remove(dir + "/" + e.Name())
		}
	}
}

func (s *Store) hasStale(dir string) bool {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix) {
			return true
		}
	}
	return false
}

// same reports whether path still is what fd has open.
func same(fd int, path string) bool {
	var a, b unix.Stat_t
	return unix.Fstat(fd, &a) == nil && unix.Lstat(path, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// removeTree removes a directory of the store with everything in it.
func removeTree(path string) error {
	err := layer.RemoveAll(unix.AT_FDCWD, path)
	if errno := unix.Errno(0); errors.As(err, &errno) {
		return &os.PathError{Op: "remove", Path: path, Err: errno}
	}
	return err
}
