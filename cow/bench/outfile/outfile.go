// Package outfile writes the results of a measurement to files.
//
// A measurement takes minutes to hours, so whether a file can be written is found out before it
// begins ([Check], [CheckDir]), with nothing left behind by that. Only what is complete takes the place of an
// older file ([File.Write]): until then, and when the measurement fails, the older one stays.
package outfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
)

// File is a place for results that could be written to when it was checked.
type File struct {
	path string   // as the user said it
	real string   // what is replaced: path without symbolic links
	old  *os.File // standard output or error where path is one of them
	// direct says that path is opened and written to: it is no regular file, or its directory takes no new files.
	direct bool
}

// Check finds out whether path can be written to, and leaves it as it is. The path "-" is standard output.
func Check(path string) (*File, error) {
	f := &File{path: path}
	if path == "-" {
		f.old = os.Stdout
		return f, nil
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if f.real, err = missing(path); err != nil {
			return nil, said(path, err)
		}
		return f, said(path, tryDir(filepath.Dir(f.real)))
	case err != nil:
		return nil, said(path, err)
	case st.IsDir():
		return nil, said(path, errors.New("it is a directory; give the name of a file"))
	}
	for _, std := range []*os.File{os.Stdout, os.Stderr} { // /dev/stdout may be a regular file, and must not be replaced
		if s, err := std.Stat(); err == nil && os.SameFile(s, st) {
			f.old = std
			return f, nil
		}
	}
	if !st.Mode().IsRegular() {
		f.direct = true // a fifo is opened later: that waits for a reader
		return f, nil
	}
	if f.real, err = filepath.EvalSymlinks(path); err != nil {
		return nil, said(path, err)
	}
	file, err := os.OpenFile(f.real, os.O_WRONLY, 0)
	if err != nil {
		return nil, said(path, err)
	}
	f.direct = tryDir(filepath.Dir(f.real)) != nil
	return f, file.Close()
}

// Standard says whether the file is standard output.
func (f *File) Standard() bool { return f.old == os.Stdout }

// Same says whether both are one place.
func (f *File) Same(g *File) bool {
	if f.old != nil || g.old != nil {
		return f.old == g.old
	}
	if f.direct || g.direct {
		return f.path == g.path
	}
	a, errA := f.place()
	b, errB := g.place()
	return errA == nil && errB == nil && a == b
}

// place is real with a directory that every path of the file has.
func (f *File) place() (string, error) {
	dir, err := filepath.EvalSymlinks(filepath.Dir(f.real))
	if err != nil {
		return "", err
	}
	return filepath.Abs(filepath.Join(dir, filepath.Base(f.real)))
}

// Write replaces the file by what write writes, once that is complete and on the disk.
func (f *File) Write(write func(io.Writer) error) error {
	var b bytes.Buffer // nothing is touched before there is something to write
	if err := write(&b); err != nil {
		return said(f.path, err)
	}
	switch {
	case f.old != nil:
		_, err := f.old.Write(b.Bytes())
		return said(f.path, err)
	case f.direct:
		return said(f.path, os.WriteFile(f.path, b.Bytes(), 0o666))
	}
	return said(f.path, replace(f.real, b.Bytes()))
}

// replace puts data in the place of a file, with the owner and the mode of that.
func replace(path string, data []byte) (err error) {
	f, err := temporary(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	var like error
	if st, err := os.Stat(path); err == nil {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			_ = f.Chown(int(sys.Uid), int(sys.Gid)) // not everybody may; then it is ours
		}
		like = f.Chmod(st.Mode().Perm())
	}
	_, err = f.Write(data)
	if err = errors.Join(like, err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// CheckDir finds out whether files can be made in dir, which is made with its parents when it is missing:
// so it looks at the nearest of them that is there. It leaves nothing behind.
func CheckDir(dir string) error {
	at := filepath.Clean(dir)
	for {
		st, err := os.Stat(at)
		if err == nil && !st.IsDir() {
			return said(dir, fmt.Errorf("%s is not a directory", at))
		}
		if err == nil {
			return said(dir, tryDir(at))
		}
		parent := filepath.Dir(at)
		if !errors.Is(err, fs.ErrNotExist) || parent == at {
			return said(dir, err)
		}
		at = parent
	}
}

// WriteDir writes files of these names to dir, and makes it when it is missing.
func WriteDir(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return said(dir, err)
	}
	for name, data := range files {
		if err := replace(filepath.Join(dir, name), data); err != nil {
			return said(filepath.Join(dir, name), err)
		}
	}
	return nil
}

// temporary makes a file in a directory, with the mode that any new file gets.
func temporary(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, fmt.Sprintf(".plyfs-bench-result-%016x", rand.Uint64())), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}

// tryDir makes a file in a directory, and removes it.
func tryDir(dir string) error {
	f, err := temporary(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no directory %s", dir)
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// missing returns the file that opening path would make: path, or where a symbolic link that leads nowhere leads.
func missing(path string) (string, error) {
	for range 40 { // as many as the kernel follows
		if filepath.Base(path) == "." || os.IsPathSeparator(path[max(len(path)-1, 0)]) {
			return "", errors.New("it is a directory; give the name of a file")
		}
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", syscall.ELOOP
}

// said adds to an error what was not possible, and keeps the reason without the name of a temporary file.
func said(path string, err error) error {
	if err == nil {
		return nil
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Errorf("cannot write results to %s: %w", path, err)
}
