package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxRecord bounds the size of a JSON file that is read into memory. Configurations
// of images are the largest; registries refuse them from 4 MiB on.
const maxRecord = 8 << 20

// newPrefix begins the names of files that are being written.
const newPrefix = ".new-"

// WriteFile puts a file in place, or leaves what was there: the new one is on disk before
// it gets its name.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, newPrefix+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// WriteJSON is [WriteFile] for a value, indented for people.
func WriteJSON(path string, v any) error {
	b, err := encodeJSON(v)
	if err != nil {
		return err
	}
	return WriteFile(path, b, 0o600)
}

func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return b.Bytes(), err
}

// overwriteJSON writes a value into a small file that is there, for when the disk has no room for another one. What is
// shorter is written as long as it was, with spaces, by one write: killed after that, we leave JSON. When the power fails
// in the middle the file is damaged.
func overwriteJSON(path string, v any) error {
	b, err := encodeJSON(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	pad := max(0, st.Size()-int64(len(b)))
	if _, err := f.Write(append(b, bytes.Repeat([]byte(" "), int(pad))...)); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(b))); err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// ReadJSON reads a file that [WriteJSON] wrote. A file that is damaged is an error that
// names it; one that is missing matches os.ErrNotExist.
func ReadJSON(path string, v any) error {
	b, err := readFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	return nil
}

// readFile reads a regular file of bounded size.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &os.PathError{Op: "read", Path: path, Err: errors.New("no regular file")}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err == nil && len(b) > maxRecord {
		err = &os.PathError{Op: "read", Path: path, Err: unix.EFBIG}
	}
	return b, err
}

// Rename puts a file or directory in its place in the store: the name is on disk when it
// returns. The target must not exist (os.ErrExist).
func Rename(from, to string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return syncDir(filepath.Dir(to))
}

// exchange puts a file or directory in the place of another, which is at from afterwards.
func exchange(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
	if err == unix.EINVAL || err == unix.ENOSYS { // the filesystem cannot do it at once
		if err := Rename(to, from+".old"); err != nil {
			return err
		}
		return Rename(from, to)
	}
	if err != nil {
		return &os.LinkError{Op: "exchange", Old: from, New: to, Err: err}
	}
	return syncDir(filepath.Dir(to))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
