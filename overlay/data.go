package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
)

// ReadAt reads up to len(p) bytes at off; fewer only at the end of the file.
func (fs *FS) ReadAt(n *Node, p []byte, off int64) (int, error) {
	o, err := fs.reader(n)
	if err != nil {
		return 0, err
	}
	defer o.done()
	return o.readAt(p, off)
}

func (o *openFile) readAt(p []byte, off int64) (int, error) {
	if o.partial != nil {
		return o.partial.ReadAt(p, off)
	}
	return readFull(o.fd, p, off)
}

// Source returns the descriptor of the file that has all data of n, for splice(2), which is to
// leave its position alone; it stays open until done is called. It is negative where ReadAt must be
// asked: of an unfinished file, and of one that cannot be opened.
func (fs *FS) Source(n *Node) (fd int, done func()) {
	o, err := fs.reader(n)
	if err != nil {
		return -1, nil
	}
	if o.partial != nil {
		o.done()
		return -1, nil
	}
	return o.fd, o.done
}

// ReadQuiet is ReadAt without a trace in the access time of an upper file (O_NOATIME); of a
// lower one there is none.
func (fs *FS) ReadQuiet(n *Node, p []byte, off int64) (int, error) {
	o, err := fs.reader(n)
	if err != nil {
		return 0, err
	}
	defer o.done()
	if o.upper && o.partial == nil {
		if fd, err := layer.Open(o.fd, "", unix.O_RDONLY|unix.O_NOATIME, 0); err == nil {
			defer unix.Close(fd)
			return readFull(fd, p, off)
		}
	}
	return fs.ReadAt(n, p, off)
}

func readFull(fd int, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		m, err := unix.Pread(fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return done, err
		case m == 0:
			return done, nil
		}
		done += m
	}
	return done, nil
}

// WriteAt writes p at off. With killPriv the set-id bits go first, as the kernel asks
// for a caller without CAP_FSETID. The first write copies the file up.
func (fs *FS) WriteAt(c *Caller, n *Node, p []byte, off int64, killPriv bool) (int, error) {
	if err := fs.mayWrite(n, p, off); err != nil {
		return 0, err
	}
	o := n.file.Load()
	var first *cow.Pending
	if o == nil || !o.write || !o.hold() {
		var err error
		if o, first, err = fs.firstWrite(c, n, need{cause: cow.CauseWrite, size: -1, asked: int64(len(p))}); err != nil {
			return 0, err
		}
	}
	defer o.done()
	if first != nil {
		defer first.Publish(o.partial)
	}
	if killPriv {
		if err := fs.dropSetID(c, n, o); err != nil {
			return 0, err
		}
	}
	if o.partial != nil {
		fs.settle.changes.Add(1)
	}
	return o.writeAt(p, off)
}

// writePiece is how much is written at once. ext4 makes one folio of what it is given, and walks through
// all its blocks whenever a part of it is changed later: with a MiB, two fifths of the cost of a random write.
const writePiece = 128 << 10

// writeAt writes all of p at off as far as it can; an error only if it wrote nothing.
func (o *openFile) writeAt(p []byte, off int64) (int, error) {
	if o.partial != nil {
		return o.partial.WriteAt(p, off)
	}
	done := 0
	for done < len(p) {
		m, err := unix.Pwrite(o.fd, p[done:min(done+writePiece, len(p))], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			if done > 0 {
				return done, nil
			}
			return 0, err
		}
		done += m
	}
	return done, nil
}

// firstWrite is toWrite for a caller that publishes the event after what it writes.
func (fs *FS) firstWrite(c *Caller, n *Node, w need) (*openFile, *cow.Pending, error) {
	var first *cow.Pending
	w.first = &first
	o, err := fs.toWrite(c, n, w)
	if err != nil {
		first.Publish(nil)
		return nil, nil, err
	}
	return o, first, nil
}

// toWrite copies n up as w says and returns its open upper file.
func (fs *FS) toWrite(c *Caller, n *Node, w need) (*openFile, error) {
	if o := n.file.Load(); o != nil && o.write && !n.loose.Load() && o.hold() {
		return o, nil
	}
	if n.typ != unix.S_IFREG {
		return nil, unix.EINVAL
	}
	for {
		if err := fs.copyUp(c, n, w); err != nil {
			return nil, err
		}
		o, err := fs.writer(n)
		if err == unix.EROFS && fs.upper != nil {
			continue // metadata only since we looked
		}
		if err != nil {
			return nil, err
		}
		return o, nil
	}
}

// dropSetID clears the set-id bits of an upper file. The capability goes with every
// write by itself.
func (fs *FS) dropSetID(c *Caller, n *Node, o *openFile) error {
	if fs.overrides[fs.upper] != "" {
		n.mu.RLock()
		defer n.mu.RUnlock()
		p, err := n.place()
		if err != nil {
			return err
		}
		defer p.done()
		return fs.dropOverride(c, p, n)
	}
	var st unix.Stat_t
	if err := unix.Fstat(o.fd, &st); err != nil {
		return err
	}
	mode := fs.killSetID(c, st.Mode, st.Gid)
	if mode == st.Mode&0o7777 {
		return nil
	}
	if o.partial == nil {
		return unix.Fchmod(o.fd, mode)
	}
	return fs.eng.Change(st.Ino, func() error { return unix.Fchmod(o.fd, mode) })
}

// killSetID is [Caller.KillSetID] for a mode and the group stored with it.
func (fs *FS) killSetID(c *Caller, mode, gid uint32) uint32 {
	return c.KillSetID(mode, toView(fs.cfg.GIDMap, gid))
}

// Seek finds data or a hole (SEEK_DATA, SEEK_HOLE).
func (fs *FS) Seek(n *Node, off int64, whence int) (int64, error) {
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, unix.EINVAL
	}
	o, err := fs.reader(n)
	if err != nil {
		return 0, err
	}
	defer o.done()
	if o.partial != nil {
		return o.partial.Seek(off, whence)
	}
	// The position of the shared descriptor means nothing to anybody.
	return unix.Seek(o.fd, off, whence)
}

// Fallocate changes the space of a file, in the modes the upper's filesystem knows.
func (fs *FS) Fallocate(c *Caller, n *Node, mode uint32, off, length int64) error {
	if n.typ != unix.S_IFREG {
		if n.isDir() {
			return unix.EISDIR
		}
		return unix.ENODEV
	}
	forbid := guardImmutable
	if mode&^unix.FALLOC_FL_KEEP_SIZE != 0 {
		forbid |= guardAppend
	}
	if err := fs.guarded(n, forbid); err != nil {
		return err
	}
	o, first, err := fs.firstWrite(c, n, need{cause: cow.CauseFallocate, size: -1, asked: length})
	if err != nil {
		return err
	}
	defer o.done()
	if first != nil {
		defer first.Publish(o.partial)
	}
	if o.partial != nil {
		fs.settle.changes.Add(1)
		return o.partial.Fallocate(mode, off, length, cancelOf(c))
	}
	for {
		if err := unix.Fallocate(o.fd, mode, off, length); err != unix.EINTR {
			return err
		}
	}
}

// CopyRange copies within the view without the bytes passing through the caller.
func (fs *FS) CopyRange(c *Caller, in *Node, offIn int64, out *Node, offOut, length int64) (int64, error) {
	if in.typ != unix.S_IFREG || out.typ != unix.S_IFREG {
		return 0, unix.EINVAL
	}
	if err := fs.guarded(out, guardAppend|guardImmutable); err != nil {
		return 0, err
	}
	dst, first, err := fs.firstWrite(c, out, need{cause: cow.CauseWrite, size: -1, asked: length})
	if err != nil {
		return 0, err
	}
	defer dst.done()
	if first != nil {
		defer first.Publish(dst.partial)
	}
	src, err := fs.reader(in)
	if err != nil {
		return 0, err
	}
	defer src.done()
	if src.partial == nil && dst.partial == nil {
		i, o := offIn, offOut
		m, err := unix.CopyFileRange(src.fd, &i, dst.fd, &o, int(length), 0)
		switch err {
		case unix.EXDEV, unix.EOPNOTSUPP, unix.ENOSYS, unix.EINVAL:
			// A node whose file was handed over (Renew) and its successor have one file between them.
			if in == out || sameFile(src.fd, dst.fd) {
				return int64(m), err
			}
		default:
			return int64(m), err
		}
	}
	return copyLoop(src, dst, offIn, offOut, length)
}

func sameFile(a, b int) bool {
	var sa, sb unix.Stat_t
	return unix.Fstat(a, &sa) == nil && unix.Fstat(b, &sb) == nil && sa.Dev == sb.Dev && sa.Ino == sb.Ino
}

// copyLoop copies a part of the range through a buffer: the caller asks again.
func copyLoop(src, dst *openFile, offIn, offOut, length int64) (int64, error) {
	buf := make([]byte, min(length, 1<<20))
	m, err := src.readAt(buf, offIn)
	if m == 0 {
		return 0, err
	}
	m, err = dst.writeAt(buf[:m], offOut)
	if m > 0 {
		err = nil
	}
	return int64(m), err
}

// Fsync writes the data of a file to stable storage. A lower file has nothing to write.
func (fs *FS) Fsync(n *Node, datasync bool) error {
	if fs.upper == nil || !n.upper.Load() || fs.cfg.Volatile {
		return nil
	}
	if n.typ != unix.S_IFREG {
		return nil
	}
	o, err := fs.reader(n)
	if err != nil {
		return err
	}
	defer o.done()
	switch {
	case !o.upper:
		return nil
	case o.partial != nil:
		return o.partial.Sync(datasync)
	}
	return fs.eng.Fsync(o.fd, datasync)
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// Syncfs writes everything to stable storage (kernel: ovl_sync_fs).
func (fs *FS) Syncfs() error {
	if fs.upper == nil || fs.cfg.Volatile {
		return nil
	}
	return fs.syncAll()
}

// Statfs describes the filesystem that new files go to.
func (fs *FS) Statfs(_ *Node, st *unix.Statfs_t) error {
	t := fs.upper
	if t == nil {
		t = fs.lowers[0]
	}
	fd, err := t.Root.FD()
	if err != nil {
		return err
	}
	defer t.Root.Done()
	err = retry(func() error { return unix.Fstatfs(fd, st) })
	if err == nil && fs.upper == nil {
		st.Bfree, st.Bavail = 0, 0
	}
	return err
}
