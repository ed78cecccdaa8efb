package graft

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/overlay"
)

// ReadAt reads up to len(p) bytes at off; fewer only at the end of the file.
func (u *Union) ReadAt(n Node, p []byte, off int64) (int, error) {
	if n.g == nil {
		return u.fs.ReadAt(n.o, p, off)
	}
	d, err := u.reader(n.g)
	if err != nil {
		return 0, err
	}
	defer d.done()
	done := 0
	for done < len(p) {
		m, err := unix.Pread(d.fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil && done == 0:
			return 0, err
		case err != nil || m == 0:
			return done, nil
		}
		done += m
	}
	return done, nil
}

// WriteAt writes p at off.
func (u *Union) WriteAt(c *overlay.Caller, n Node, p []byte, off int64, killPriv bool) (int, error) {
	if n.g == nil {
		return u.fs.WriteAt(c, n.o, p, off, killPriv)
	}
	return u.WriteFile(c, n, p, off, 0, killPriv)
}

// WriteFile implements fusefs.Sharer.
func (u *Union) WriteFile(c *overlay.Caller, n Node, p []byte, off int64, flags uint32, killPriv bool) (int, error) {
	if n.g == nil {
		return u.fs.WriteAt(c, n.o, p, off, killPriv)
	}
	g := n.g
	var d *desc
	var err error
	add := flags&unix.O_APPEND != 0
	if add {
		if d, err = u.appender(c, g); err != nil {
			return 0, err
		}
	}
	if d == nil {
		if d, err = u.writer(c, g); err != nil {
			return 0, err
		}
		if add {
			var st overlay.Attr
			if err := layer.Stat(d.fd, "", &st); err != nil {
				d.done()
				return 0, err
			}
			off, add = int64(st.Size), false
		}
	}
	defer d.done()
	if killPriv {
		if err := killSetID(c, d.fd, g.typ, nil); err != nil {
			return 0, err
		}
	}
	done, err := writeAll(d.fd, p, off, add)
	if err == nil && flags&(unix.O_SYNC|unix.O_DSYNC) != 0 {
		err = retry(func() error { return unix.Fdatasync(d.fd) })
		if err != nil {
			return 0, err
		}
	}
	return done, err
}

// writeAll writes p at off, or, to append it, wherever the end is.
func writeAll(fd int, p []byte, off int64, add bool) (int, error) {
	done := 0
	for done < len(p) {
		var m int
		var err error
		if add {
			m, err = unix.Write(fd, p[done:])
		} else {
			m, err = unix.Pwrite(fd, p[done:], off+int64(done))
		}
		switch {
		case err == unix.EINTR:
			continue
		case err != nil && done > 0:
			return done, nil
		case err != nil:
			return 0, err
		}
		done += m
	}
	return done, nil
}

// Seek finds data or a hole (SEEK_DATA, SEEK_HOLE).
func (u *Union) Seek(n Node, off int64, whence int) (int64, error) {
	if n.g == nil {
		return u.fs.Seek(n.o, off, whence)
	}
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, unix.EINVAL
	}
	d, err := u.reader(n.g)
	if err != nil {
		return 0, err
	}
	defer d.done()
	return unix.Seek(d.fd, off, whence)
}

// Fallocate changes the space of a file, in the modes the source knows.
func (u *Union) Fallocate(c *overlay.Caller, n Node, mode uint32, off, length int64) error {
	if n.g == nil {
		return u.fs.Fallocate(c, n.o, mode, off, length)
	}
	d, err := u.writer(c, n.g)
	if err != nil {
		return err
	}
	defer d.done()
	err = retry(func() error { return unix.Fallocate(d.fd, mode, off, length) })
	n.g.src.lacks("fallocate(2)", err)
	return err
}

// CopyRange copies without the bytes passing through the caller. EXDEV from one tree to another
// makes the kernel copy by reading and writing.
func (u *Union) CopyRange(c *overlay.Caller, in Node, offIn int64, out Node, offOut, length int64) (int64, error) {
	switch {
	case in.g == nil && out.g == nil:
		return u.fs.CopyRange(c, in.o, offIn, out.o, offOut, length)
	case in.g == nil || out.g == nil:
		return 0, unix.EXDEV
	}
	src, err := u.reader(in.g)
	if err != nil {
		return 0, err
	}
	defer src.done()
	dst, err := u.writer(c, out.g)
	if err != nil {
		return 0, err
	}
	defer dst.done()
	done, err := unix.CopyFileRange(src.fd, &offIn, dst.fd, &offOut, int(length), 0)
	if err == unix.EINVAL && in != out {
		err = unix.EOPNOTSUPP
	}
	return int64(done), err
}

// Fsync writes the data of a file to stable storage.
func (u *Union) Fsync(n Node, datasync bool) error {
	if n.g == nil {
		return u.fs.Fsync(n.o, datasync)
	}
	if n.g.typ != unix.S_IFREG || n.g.src.private {
		return nil
	}
	g := n.g
	g.mu.Lock()
	var d *desc
	for _, open := range []*desc{g.w, g.a, g.r} {
		if open != nil && open.hold() {
			d = open
			break
		}
	}
	g.mu.Unlock()
	if d == nil {
		return nil
	}
	defer d.done()
	return retry(func() error {
		if datasync {
			return unix.Fdatasync(d.fd)
		}
		return unix.Fsync(d.fd)
	})
}

// Syncfs writes everything to stable storage.
func (u *Union) Syncfs() error {
	err := u.fs.Syncfs()
	for _, s := range u.sources {
		if s.private || s.spec.ReadOnly {
			continue
		}
		e := u.at(s.root, func(fd int) error {
			f, err := layer.Open(fd, "", unix.O_RDONLY|unix.O_NONBLOCK, 0)
			if err != nil {
				return err
			}
			defer unix.Close(f)
			return retry(func() error { return unix.Syncfs(f) })
		})
		if err == nil {
			err = e
		}
	}
	return err
}

// Commands of linux/fs.h that have no constant in x/sys, for 64-bit machines, and the size of
// their largest argument.
const (
	fsIocFSGetXattr = 0x801c581f
	fsIocFSSetXattr = 0x401c5820
	fsIocGetVersion = 0x80087601
	argMax          = 32
)

// Ioctl serves the file flags (lsattr, chattr) and the project id. Everything else is ENOTTY.
func (u *Union) Ioctl(c *overlay.Caller, n Node, cmd uint32, in, out []byte) (int32, error) {
	if n.g == nil {
		if u.frozen && (cmd == unix.FS_IOC_SETFLAGS || cmd == fsIocFSSetXattr) {
			return 0, errReadOnly
		}
		return u.fs.Ioctl(c, n.o, cmd, in, out)
	}
	if n.g.syn != nil {
		return 0, unix.ENOTTY
	}
	switch cmd {
	case unix.FS_IOC_GETFLAGS, fsIocFSGetXattr, fsIocGetVersion:
	case unix.FS_IOC_SETFLAGS, fsIocFSSetXattr:
		if n.g.src.spec.ReadOnly {
			return 0, errReadOnly
		}
	default:
		return 0, unix.ENOTTY
	}
	if n.g.typ != unix.S_IFREG && n.g.typ != unix.S_IFDIR {
		return 0, unix.ENOTTY
	}
	return 0, u.at(n.g, func(own int) error {
		fd, err := layer.Open(own, "", unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		var arg [argMax]byte
		copy(arg[:], in)
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(&arg[0])))
		if e != 0 {
			return e
		}
		copy(out, arg[:])
		return nil
	})
}
