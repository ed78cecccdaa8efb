package cow

import (
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// smallFile is the size in bytes up to which one read and one write are
	// cheaper than asking for anything cleverer.
	smallFile = 64 << 10
	// chunkSize is how many bytes are copied between two looks at the cancel
	// channel. A kernel without preemption lets others have the processor only between
	// system calls, and these take some hundred microseconds.
	chunkSize = 256 << 10
	// flushSize is how far write-back may trail behind.
	flushSize = 2 << 20
	// loopBuffer is the buffer of the read and write loop.
	loopBuffer = 256 << 10
)

var (
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, smallFile); return &b }}
	loopBuffers  = sync.Pool{New: func() any { b := make([]byte, loopBuffer); return &b }}
)

// copier moves the data of one file. It keeps holes as holes.
type copier struct {
	dst, src int
	pair     *pair
	cancel   <-chan struct{}
	flush    bool // start write-back early, for a short fsync at the end
	method   Method
	copied   int64
	// around is called with each change of dst, to make it; nil to just make it.
	around func(change func() error) error
}

func (c *copier) change(f func() error) error {
	if c.around == nil {
		return f()
	}
	return c.around(f)
}

// whole copies the first size bytes of src to the empty file dst. lower is the
// source's own size and blocks its space in units of 512 bytes.
// It returns EINTR when the cancel channel was closed, otherwise the errno of
// what failed.
func (c *copier) whole(size, lower int64, blocks uint64) error {
	c.method = MethodNone
	if size == 0 || lower == 0 {
		return nil
	}
	if canceled(c.cancel) {
		return unix.EINTR
	}
	if done, err := c.share(size, lower); done || err != nil {
		return err
	}
	c.method = MethodLoop
	size = min(size, lower)
	sparse := int64(blocks)*512 < size
	if size <= smallFile && !sparse {
		return c.small(size)
	}
	if !sparse {
		return c.segment(0, size)
	}
	return c.sparse(0, size)
}

// share lets dst have the first size bytes of src, whose size is lower, by
// sharing extents. It reports false where the filesystems cannot.
func (c *copier) share(size, lower int64) (bool, error) {
	if c.pair.noClone.Load() {
		return false, nil
	}
	done := false
	err := c.change(func() (err error) {
		if done, err = c.clone(); err == nil && done && size < lower {
			err = c.truncate(size)
		}
		return err
	})
	if err != nil || !done {
		return false, err
	}
	c.method = MethodClone
	return true, nil
}

func (c *copier) truncate(size int64) error {
	return ignoringEINTR(func() error { return unix.Ftruncate(c.dst, size) })
}

// small copies a file that fits a small buffer.
func (c *copier) small(size int64) error {
	bp := smallBuffers.Get().(*[]byte)
	defer smallBuffers.Put(bp)
	buf := (*bp)[:size]
	n, err := preadFull(c.src, buf, 0)
	if err != nil {
		return err
	}
	c.copied += int64(n)
	return c.change(func() error { return pwriteFull(c.dst, buf[:n], 0) })
}

// sparse copies the data between from and to, hole by hole, and gives dst its
// size at the end.
func (c *copier) sparse(from, to int64) error {
	for pos := from; pos < to; {
		data, err := unix.Seek(c.src, pos, unix.SEEK_DATA)
		switch err {
		case nil:
		case unix.ENXIO: // only a hole follows
			data = to
		case unix.EINVAL: // a filesystem that does not know its holes
			return c.segment(pos, to)
		default:
			return err
		}
		if data >= to {
			break
		}
		hole, err := unix.Seek(c.src, data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		hole = min(hole, to)
		if err := c.segment(data, hole); err != nil {
			return err
		}
		pos = hole
	}
	return c.change(func() error { return c.truncate(to) })
}

// segment copies the bytes from .. to, chunk by chunk.
func (c *copier) segment(from, to int64) error {
	if to-from >= longCopy {
		defer givingWay()()
	}
	flushed := from
	for pos := from; pos < to; {
		if canceled(c.cancel) {
			return unix.EINTR
		}
		var n int64
		err := c.change(func() (err error) {
			n, err = c.chunk(pos, min(to-pos, chunkSize))
			return err
		})
		if err != nil {
			return err
		}
		if n == 0 { // the source is shorter than it said
			return nil
		}
		c.copied += n
		pos += n
		if c.flush && pos-flushed >= flushSize {
			// Only a hint: its failure changes nothing.
			_ = unix.SyncFileRange(c.dst, flushed, pos-flushed, unix.SYNC_FILE_RANGE_WRITE)
			flushed = pos
		}
	}
	return nil
}

// chunk copies up to n bytes at pos and returns how many it did; 0 at the
// source's end.
func (c *copier) chunk(pos, n int64) (int64, error) {
	if !c.pair.noCopyRange.Load() {
		in, out := pos, pos
		m, err := unix.CopyFileRange(c.src, &in, c.dst, &out, int(n), 0)
		switch err {
		case nil:
			if m > 0 {
				c.method = MethodCopyRange
				return int64(m), nil
			}
			// Some filesystems say 0 for what they cannot copy: read instead.
		case unix.EINTR:
			return c.loop(pos, min(n, loopBuffer))
		case unix.ENOSYS, unix.EXDEV, unix.EOPNOTSUPP, unix.EINVAL, unix.EPERM, unix.EBADF, unix.ETXTBSY:
			c.pair.noCopyRange.Store(true)
		default:
			return 0, err
		}
	}
	return c.loop(pos, n)
}

// loop copies up to n bytes at pos through a buffer.
func (c *copier) loop(pos, n int64) (int64, error) {
	bp := loopBuffers.Get().(*[]byte)
	defer loopBuffers.Put(bp)
	var done int64
	for done < n {
		buf := (*bp)[:min(n-done, loopBuffer)]
		r, err := preadFull(c.src, buf, pos+done)
		if err != nil {
			return done, err
		}
		if r == 0 {
			break
		}
		if err := pwriteFull(c.dst, buf[:r], pos+done); err != nil {
			return done, err
		}
		done += int64(r)
	}
	return done, nil
}

// clone shares the whole of src with dst. It reports false when the pair of
// filesystems cannot, and remembers it.
func (c *copier) clone() (bool, error) {
	for {
		err := unix.IoctlFileClone(c.dst, c.src)
		switch err {
		case nil:
			return true, nil
		case unix.EINTR:
			continue
		case unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS:
			return false, err
		case unix.EOPNOTSUPP, unix.EXDEV, unix.ENOTTY, unix.ENOSYS:
			c.pair.noClone.Store(true)
		}
		// EINVAL and the like speak of this file only (no data checksums on
		// one of the two, say).
		return false, nil
	}
}

func preadFull(fd int, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pread(fd, p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		if n == 0 {
			break
		}
		done += n
	}
	return done, nil
}

func pwriteFull(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.EIO
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
