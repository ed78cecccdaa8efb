package store

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// How a volume is filled, and what a kill leaves. Others may have data/ open already (a
// container that did not want it filled), so the directory itself stays.
//
//  1. The copy is made in fill/. Killed: the next one begins anew.
//  2. The times of the directory are kept at a file of their own, because the third step changes them; all is put
//     on disk, and renamed to ready/. From here on it is decided.
//  3. Its entries are moved to data/, one by one; what is there already stays. Killed:
//     the next one goes on.
//  4. data/ gets the attributes of the directory, ready/ goes, the record says Filled.
//
// Of an empty directory data/ gets the attributes alone, once: the record says Shaped, and files may still come
// from another image.

// FillVolume fills a volume that is new and empty. fill gets an empty directory and makes it
// what data/ shall be, attributes included; it reports false if there is no such directory. Other
// volumes, and those filled before, are left alone. Only one process fills a volume at a
// time; the others wait, and find it done.
func (s *Store) FillVolume(name string, fill func(dir string) (bool, error)) error {
	path := s.Path("volumes", name)
	fd, err := lockDir(path, unix.LOCK_EX)
	if err == unix.ENOENT {
		return fmt.Errorf("no volume %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return &os.PathError{Op: "lock", Path: path, Err: err}
	}
	defer unix.Close(fd)
	v, err := s.volume(name)
	if err != nil || v.Filled {
		return err
	}
	if err := s.fillLocked(path, fill); err != nil {
		return s.Explain(fmt.Errorf("filling volume %s: %w", name, err))
	}
	return nil
}

func (s *Store) fillLocked(path string, fill func(dir string) (bool, error)) error {
	removeStale(path)
	data, making, ready, times := path+"/data", path+"/fill", path+"/ready", path+"/times"
	if err := removeTree(making); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, err := os.Lstat(ready); errors.Is(err, os.ErrNotExist) {
		entries, err := os.ReadDir(data)
		if err != nil {
			return err
		}
		if len(entries) > 0 {
			return s.markFilled(path)
		}
		if err := os.Mkdir(making, 0o755); err != nil {
			return err
		}
		some, err := fill(making)
		if err == nil && some {
			if entries, err = os.ReadDir(making); err == nil && len(entries) == 0 {
				some, err = false, s.shape(path, making, data)
			}
		}
		if err == nil && some {
			if err = os.WriteFile(times, nil, 0o600); err == nil {
				err = copyTimes(making, times)
			}
			if err == nil {
				err = syncFilesystem(making)
			}
		}
		if err != nil || !some {
			_ = removeTree(making)
			return err
		}
		if err := Rename(making, ready); err != nil {
			return err
		}
	}
	if err := moveEntries(ready, data); err != nil {
		return err
	}
	if err := copyAttributes(ready, data); err != nil {
		return err
	}
	if err := copyTimes(times, data); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := syncDir(data); err != nil {
		return err
	}
	if err := removeTree(ready); err != nil {
		return err
	}
	_ = os.Remove(times)
	return s.markFilled(path)
}

// moveEntries moves what is in the directory from to the directory to. Names that are taken
// there stay what they are.
func moveEntries(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		err := unix.Renameat2(unix.AT_FDCWD, from+"/"+e.Name(), unix.AT_FDCWD, to+"/"+e.Name(), unix.RENAME_NOREPLACE)
		if err != nil && err != unix.EEXIST {
			return &os.LinkError{Op: "rename", Old: from + "/" + e.Name(), New: to + "/" + e.Name(), Err: err}
		}
	}
	return nil
}

// shape gives data/ the attributes of an empty directory, unless it has once got such.
func (s *Store) shape(path, from, data string) error {
	var rec volumeRecord
	if err := ReadJSON(path+"/volume.json", &rec); err != nil || rec.Shaped {
		return err
	}
	if err := copyAttributes(from, data); err != nil {
		return err
	}
	if err := syncDir(data); err != nil {
		return err
	}
	rec.Shaped = true
	return WriteJSON(path+"/volume.json", &rec)
}

func (s *Store) markFilled(path string) error {
	var rec volumeRecord
	if err := ReadJSON(path+"/volume.json", &rec); err != nil {
		return err
	}
	rec.Filled = true
	return WriteJSON(path+"/volume.json", &rec)
}

// copyAttributes gives the directory to owner, mode, extended attributes and times of the
// directory from.
func copyAttributes(from, to string) error {
	at := unix.AT_FDCWD
	fail := func(what string, err error) error { return &os.PathError{Op: what, Path: to, Err: err} }
	var st unix.Statx_t
	if err := layer.Stat(at, from, &st); err != nil {
		return fail("stat", err)
	}
	if err := layer.Chown(at, to, int(st.Uid), int(st.Gid)); err != nil {
		return fail("chown", err)
	}
	if err := layer.Chmod(at, to, uint32(st.Mode)&0o7777); err != nil {
		return fail("chmod", err)
	}
	names, err := layer.Listxattr(at, from)
	if err != nil && err != unix.EOPNOTSUPP {
		return fail("list attributes", err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue // marks of a layer: what they say holds there
		}
		val, err := layer.GetxattrAll(at, from, name)
		if err == nil {
			err = layer.Setxattr(at, to, name, val, 0)
		}
		if err != nil {
			return fail("attribute "+name, err)
		}
	}
	return copyTimes(from, to)
}

// copyTimes gives to the times of from.
func copyTimes(from, to string) error {
	var st unix.Statx_t
	if err := layer.Stat(unix.AT_FDCWD, from, &st); err != nil {
		return &os.PathError{Op: "stat", Path: from, Err: err}
	}
	ts := [2]unix.Timespec{{Sec: st.Atime.Sec, Nsec: int64(st.Atime.Nsec)}, {Sec: st.Mtime.Sec, Nsec: int64(st.Mtime.Nsec)}}
	if err := layer.Utimens(unix.AT_FDCWD, to, &ts); err != nil {
		return &os.PathError{Op: "times", Path: to, Err: err}
	}
	return nil
}

func syncFilesystem(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		return &os.PathError{Op: "sync", Path: dir, Err: err}
	}
	return nil
}
