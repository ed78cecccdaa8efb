package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// target is where somebody wants a file or a directory that is not there before it is whole. What is made meanwhile is a
// file without a name, which goes with its process; where the filesystem has none, and for a directory, it
// is beside the target, locked, under a name by which the next save to the same place knows what a kill left.
type target struct {
	said string // as the user calls it, for messages
	path string // absolute, and no link
}

func newTarget(said string) (*target, error) {
	path, err := filepath.Abs(said)
	if err != nil {
		return nil, err
	}
	t := &target{said, throughLinks(path)}
	t.sweep()
	return t, nil
}

// throughLinks returns where opening path to write would make a file, or find one: a link stays one, and what it leads to is
// replaced.
func throughLinks(path string) string {
	at := path
	for range 40 { // as many as the kernel follows
		dir, name := filepath.Split(at)
		dir, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return path
		}
		at = filepath.Join(dir, name)
		to, err := os.Readlink(at)
		if err != nil {
			return at
		}
		if at = to; !filepath.IsAbs(to) {
			at = dir + "/" + to // not joined: .. is above what a link before it leads to
		}
	}
	return path
}

// fail gives an error that is about what is beneath temp the target's name.
func (t *target) fail(err error, temp string) error {
	if p := (*os.PathError)(nil); temp != "" && errors.As(err, &p) && strings.HasPrefix(p.Path, temp) {
		return &os.PathError{Op: p.Op, Path: t.said, Err: p.Err}
	}
	return err
}

// prefix begins the names of what is beside the target.
func (t *target) prefix() string {
	base := filepath.Base(t.path)
	return "." + base[:min(len(base), 200)] + ".plyfs-"
}

// beside returns a name beside the target that is not taken, mostly.
func (t *target) beside() string {
	return filepath.Join(filepath.Dir(t.path), fmt.Sprintf("%s%08x", t.prefix(), rand.Uint32()))
}

// sweep removes what killed saves to the same place left: ours, and locked by nobody.
func (t *target) sweep() {
	dir := filepath.Dir(t.path)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		end, begins := strings.CutPrefix(e.Name(), t.prefix())
		ours := begins && len(end) == 8 && strings.Trim(end, "0123456789abcdef") == "" // see beside
		if !ours || !e.Type().IsRegular() && !e.IsDir() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && int(st.Uid) == os.Geteuid() && flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil && same(fd, path) {
			_ = layer.RemoveAll(unix.AT_FDCWD, path)
		}
		unix.Close(fd)
	}
}

// file calls write with a file, and puts that in the target's place. A device or a pipe that is there is written to.
func (t *target) file(write func(f *os.File) error) error {
	st, err := os.Stat(t.path)
	if err == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(t.path, os.O_WRONLY, 0)
		if err != nil {
			return t.fail(err, t.path)
		}
		defer f.Close()
		return write(f)
	}
	f, temp, err := t.open()
	if err != nil {
		return &os.PathError{Op: "create", Path: t.said, Err: err}
	}
	return t.put(f, temp, st, write)
}

// put has the file f, which is called temp, written and put in place of what st says of.
func (t *target) put(f *os.File, temp string, st os.FileInfo, write func(f *os.File) error) error {
	defer f.Close()
	defer func() {
		if temp != "" {
			_ = os.Remove(temp) // fails once it is renamed
		}
	}()
	err := write(f)
	if err == nil && st != nil {
		err = f.Chmod(st.Mode().Perm())
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return err
	}
	if temp == "" {
		link := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
		err := unix.Linkat(unix.AT_FDCWD, link, unix.AT_FDCWD, t.path, unix.AT_SYMLINK_FOLLOW)
		for err == unix.EEXIST { // only a rename replaces what is there
			temp = t.beside()
			err = unix.Linkat(unix.AT_FDCWD, link, unix.AT_FDCWD, temp, unix.AT_SYMLINK_FOLLOW)
		}
		if err != nil {
			return &os.PathError{Op: "create", Path: t.said, Err: err}
		}
	}
	return t.place(temp)
}

// open opens a file for the target, locked, without a name if that can be had. Errors are errnos.
func (t *target) open() (f *os.File, temp string, err error) {
	dir := filepath.Dir(t.path)
	if _, err := os.Stat("/proc/self/fd"); err == nil {
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o666)
		switch err {
		case nil:
			_ = flock(fd, unix.LOCK_EX|unix.LOCK_NB)
			return os.NewFile(uintptr(fd), t.said), "", nil
		case unix.EOPNOTSUPP, unix.EISDIR, unix.EINVAL, unix.ENOSYS:
		default:
			return nil, "", err
		}
	}
	return t.named()
}

// named is open for filesystems without files that have no name.
func (t *target) named() (f *os.File, temp string, err error) {
	for {
		temp := t.beside()
		fd, err := unix.Open(temp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o666)
		if err == unix.EEXIST {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		if _ = flock(fd, unix.LOCK_EX|unix.LOCK_NB); same(fd, temp) { // or somebody swept it in between
			return os.NewFile(uintptr(fd), t.said), temp, nil
		}
		unix.Close(fd)
	}
}

// directory calls write with a new directory, and puts that in the target's place, where nothing may be but an empty one.
func (t *target) directory(write func(dir string) error) error {
	if entries, err := os.ReadDir(t.path); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s: there is something already", t.said)
	} else if _, lerr := os.Lstat(t.path); err != nil && (lerr == nil || !errors.Is(lerr, os.ErrNotExist)) {
		return fmt.Errorf("%s: there is something already", t.said)
	}
	var temp string
	var fd int
	for {
		temp = t.beside()
		err := unix.Mkdir(temp, 0o777)
		if err == unix.EEXIST {
			continue
		}
		if err == nil {
			if fd, err = unix.Open(temp, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err == unix.ENOENT {
				continue // swept. That mkdir says so is for good: /proc does
			}
		}
		if err != nil {
			_ = unix.Rmdir(temp)
			return &os.PathError{Op: "create", Path: t.said, Err: err}
		}
		if _ = flock(fd, unix.LOCK_EX|unix.LOCK_NB); same(fd, temp) {
			break
		}
		unix.Close(fd)
	}
	defer unix.Close(fd)
	defer func() { _ = layer.RemoveAll(unix.AT_FDCWD, temp) }() // nothing is there once it is renamed
	if err := write(temp); err != nil {
		return t.fail(err, temp)
	}
	if err := unix.Syncfs(fd); err != nil {
		return &os.PathError{Op: "sync", Path: t.said, Err: err}
	}
	return t.place(temp)
}

// place renames temp to the target; none is there already.
func (t *target) place(temp string) error {
	if temp != "" {
		if err := unix.Rename(temp, t.path); err != nil {
			return &os.PathError{Op: "replace", Path: t.said, Err: err}
		}
	}
	_ = syncDir(filepath.Dir(t.path)) // or the filesystem has no such thing
	return nil
}
