package overlay

import (
	"cmp"
	"errors"
	"io"
	iofs "io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// View is the union as package io/fs wants a filesystem: names instead of nodes, and reading only.
// Symbolic links are followed inside the view, and never lead out of it: that of an absolute link
// begins at the root of the view, ".." of the root is the root. Nobody's permissions are looked at
// but those that the layers have for this process. Errors are *[iofs.PathError] with an errno in it.
type View struct{ fs *FS }

var (
	_ iofs.ReadDirFS   = View{}
	_ iofs.ReadFileFS  = View{}
	_ iofs.StatFS      = View{}
	_ iofs.ReadLinkFS  = View{}
	_ iofs.ReadDirFile = (*viewFile)(nil)
	_ io.ReaderAt      = (*viewFile)(nil)
	_ io.Seeker        = (*viewFile)(nil)
)

// View returns the union as an io/fs filesystem. It is good until Close.
func (fs *FS) View() View { return View{fs} }

const viewLinksMax = 40 // as the kernel

// find follows a path, the link at its end only with follow. The caller calls drop.
func (v View) find(op, name string, follow bool) (*Node, error) {
	if !iofs.ValidPath(name) {
		return nil, &iofs.PathError{Op: op, Path: name, Err: iofs.ErrInvalid}
	}
	n, err := v.walk(name, follow)
	if err != nil {
		return nil, pathError(op, name, err)
	}
	return n, nil
}

// walk is find for a valid path. It keeps the directories on the way, for "..".
func (v View) walk(name string, follow bool) (*Node, error) {
	chain := []*Node{v.fs.root}
	pop := func(keep int) {
		for len(chain) > keep {
			v.drop(chain[len(chain)-1])
			chain = chain[:len(chain)-1]
		}
	}
	todo, links := strings.Split(name, "/"), 0
	var a Attr
	for len(todo) > 0 {
		elem := todo[0]
		todo = todo[1:]
		switch elem {
		case "", ".":
			continue
		case "..":
			pop(max(len(chain)-1, 1))
			continue
		}
		n, err := v.fs.Lookup(nil, chain[len(chain)-1], elem, &a)
		if err != nil {
			pop(1)
			return nil, err
		}
		if n.typ != unix.S_IFLNK || len(todo) == 0 && !follow {
			chain = append(chain, n)
			continue
		}
		target, err := v.fs.Readlink(n)
		v.drop(n)
		if links++; err == nil && links > viewLinksMax {
			err = unix.ELOOP
		}
		if err != nil {
			pop(1)
			return nil, err
		}
		if path.IsAbs(target) {
			pop(1)
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	n := chain[len(chain)-1]
	if n != v.fs.root {
		chain = chain[:len(chain)-1]
	}
	pop(1)
	return n, nil
}

func (v View) drop(n *Node) {
	if n != v.fs.root {
		v.fs.Forget(n.id, 1)
	}
}

// pathError shows the errno of err where there is one: that is what callers compare.
func pathError(op, name string, err error) error {
	if e := unix.Errno(0); errors.As(err, &e) {
		err = e
	}
	return &iofs.PathError{Op: op, Path: name, Err: err}
}

// Open implements iofs.FS. Files are also io.ReaderAt and io.Seeker.
func (v View) Open(name string) (iofs.File, error) {
	n, err := v.find("open", name, true)
	if err != nil {
		return nil, err
	}
	return &viewFile{v: v, n: n, name: name}, nil
}

// Stat implements iofs.StatFS. Sys of what it returns is an *[Attr].
func (v View) Stat(name string) (iofs.FileInfo, error) { return v.stat("stat", name, true) }

// Lstat implements iofs.ReadLinkFS.
func (v View) Lstat(name string) (iofs.FileInfo, error) { return v.stat("lstat", name, false) }

func (v View) stat(op, name string, follow bool) (iofs.FileInfo, error) {
	n, err := v.find(op, name, follow)
	if err != nil {
		return nil, err
	}
	defer v.drop(n)
	return v.info(op, name, n)
}

func (v View) info(op, name string, n *Node) (iofs.FileInfo, error) {
	i := &viewInfo{name: path.Base(name)}
	if err := v.fs.Getattr(n, &i.attr); err != nil {
		return nil, pathError(op, name, err)
	}
	return i, nil
}

// ReadLink implements iofs.ReadLinkFS.
func (v View) ReadLink(name string) (string, error) {
	n, err := v.find("readlink", name, false)
	if err != nil {
		return "", err
	}
	defer v.drop(n)
	target, err := v.fs.Readlink(n)
	if err != nil {
		return "", pathError("readlink", name, err)
	}
	return target, nil
}

// ReadFile implements iofs.ReadFileFS.
func (v View) ReadFile(name string) ([]byte, error) {
	f, err := v.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b []byte
	if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
		b = make([]byte, 0, st.Size()+1)
	}
	for {
		if len(b) == cap(b) {
			b = slices.Grow(b, 512)
		}
		n, err := f.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

// ReadDir implements iofs.ReadDirFS: sorted by name.
func (v View) ReadDir(name string) ([]iofs.DirEntry, error) {
	f, err := v.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := f.(*viewFile).ReadDir(-1)
	slices.SortFunc(list, func(a, b iofs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return list, err
}

// viewFile is an open file or directory.
type viewFile struct {
	v    View
	n    *Node
	name string

	mu     sync.Mutex // guards the rest
	off    int64      // of the next Read
	entry  uint64     // offset of the next ReadDir
	closed bool
}

// check reports the use of a closed file. f.mu is held.
func (f *viewFile) check(op string) error {
	if f.closed {
		return &iofs.PathError{Op: op, Path: f.name, Err: iofs.ErrClosed}
	}
	return nil
}

func (f *viewFile) Stat() (iofs.FileInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("stat"); err != nil {
		return nil, err
	}
	return f.v.info("stat", f.name, f.n)
}

func (f *viewFile) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.readAt(p, f.off)
	f.off += int64(n)
	if n > 0 && err == io.EOF {
		err = nil // comes next time
	}
	return n, err
}

// ReadAt implements io.ReaderAt.
func (f *viewFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off < 0 {
		return 0, pathError("read", f.name, unix.EINVAL)
	}
	return f.readAt(p, off)
}

// readAt is ReadAt with f.mu held.
func (f *viewFile) readAt(p []byte, off int64) (int, error) {
	if err := f.check("read"); err != nil {
		return 0, err
	}
	if f.n.d != nil {
		return 0, pathError("read", f.name, unix.EISDIR)
	}
	n, err := f.v.fs.ReadAt(f.n, p, off)
	if err != nil {
		return n, pathError("read", f.name, err)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Seek implements io.Seeker.
func (f *viewFile) Seek(off int64, whence int) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("seek"); err != nil {
		return 0, err
	}
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		off += f.off
	case io.SeekEnd:
		var a Attr
		if err := f.v.fs.Getattr(f.n, &a); err != nil {
			return 0, pathError("seek", f.name, err)
		}
		off += int64(a.Size)
	default:
		return 0, pathError("seek", f.name, unix.EINVAL)
	}
	if off < 0 {
		return 0, pathError("seek", f.name, unix.EINVAL)
	}
	f.off = off
	return off, nil
}

// ReadDir implements iofs.ReadDirFile.
func (f *viewFile) ReadDir(count int) ([]iofs.DirEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("readdir"); err != nil {
		return nil, err
	}
	var list []iofs.DirEntry
	buf := make([]Entry, 64)
	for count <= 0 || len(list) < count {
		if left := count - len(list); count > 0 && left < len(buf) {
			buf = buf[:left]
		}
		got, err := f.v.fs.ReadDir(f.n, f.entry, buf)
		if err != nil {
			return list, pathError("readdir", f.name, err)
		}
		if got == 0 {
			break
		}
		for _, e := range buf[:got] {
			f.entry = e.Off
			if e.Name != "." && e.Name != ".." {
				list = append(list, &viewEntry{f.v, path.Join(f.name, e.Name), fileMode(uint32(e.Type) << 12)})
			}
		}
	}
	if count > 0 && len(list) == 0 {
		return nil, io.EOF
	}
	return list, nil
}

func (f *viewFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check("close"); err != nil {
		return err
	}
	f.closed = true
	f.v.drop(f.n)
	return nil
}

// viewEntry is a name of a directory.
type viewEntry struct {
	v    View
	path string
	mode iofs.FileMode // type only
}

func (e *viewEntry) Name() string                 { return path.Base(e.path) }
func (e *viewEntry) IsDir() bool                  { return e.mode.IsDir() }
func (e *viewEntry) Type() iofs.FileMode          { return e.mode }
func (e *viewEntry) Info() (iofs.FileInfo, error) { return e.v.Lstat(e.path) }
func (e *viewEntry) String() string               { return iofs.FormatDirEntry(e) }

// viewInfo is what is known of an object.
type viewInfo struct {
	name string
	attr Attr
}

func (i *viewInfo) Name() string        { return i.name }
func (i *viewInfo) Size() int64         { return int64(i.attr.Size) }
func (i *viewInfo) Mode() iofs.FileMode { return fileMode(uint32(i.attr.Mode)) }
func (i *viewInfo) ModTime() time.Time  { return time.Unix(i.attr.Mtime.Sec, int64(i.attr.Mtime.Nsec)) }
func (i *viewInfo) IsDir() bool         { return i.Mode().IsDir() }
func (i *viewInfo) Sys() any            { return &i.attr }
func (i *viewInfo) String() string      { return iofs.FormatFileInfo(i) }

// fileMode translates st_mode.
func fileMode(mode uint32) iofs.FileMode {
	m := iofs.FileMode(mode & 0o777)
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m |= iofs.ModeDir
	case unix.S_IFLNK:
		m |= iofs.ModeSymlink
	case unix.S_IFIFO:
		m |= iofs.ModeNamedPipe
	case unix.S_IFSOCK:
		m |= iofs.ModeSocket
	case unix.S_IFCHR:
		m |= iofs.ModeDevice | iofs.ModeCharDevice
	case unix.S_IFBLK:
		m |= iofs.ModeDevice
	}
	if mode&unix.S_ISUID != 0 {
		m |= iofs.ModeSetuid
	}
	if mode&unix.S_ISGID != 0 {
		m |= iofs.ModeSetgid
	}
	if mode&unix.S_ISVTX != 0 {
		m |= iofs.ModeSticky
	}
	return m
}
