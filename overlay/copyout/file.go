package copyout

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/overlay"
)

// file copies a regular file.
func (c *copier) file(n *overlay.Node, a *overlay.Attr, name string, to int, at string) error {
	fd, err := layer.Open(to, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if a.Size > 0 {
		source, _, release, err := c.fs.Backing(nil, n, false)
		if err != nil {
			return err
		}
		err = copyData(fd, source, int64(a.Size))
		release()
		if err != nil {
			return err
		}
	}
	return c.attributes(n, a, to, name, at)
}

// copyData copies size bytes: by sharing extents where the filesystem can, and with the holes.
func copyData(to, from int, size int64) error {
	if unix.IoctlFileClone(to, from) == nil {
		return nil
	}
	if err := unix.Ftruncate(to, size); err != nil {
		return err
	}
	for off := int64(0); off < size; {
		start, err := unix.Seek(from, off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return nil // a hole up to the end
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(from, start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := copyRange(to, from, start, min(end, size)); err != nil {
			return err
		}
		off = end
	}
	return nil
}

func copyRange(to, from int, off, end int64) error {
	in, out := off, off
	for in < end {
		n, err := unix.CopyFileRange(from, &in, to, &out, int(min(end-in, 1<<30)), 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EXDEV || err == unix.EINVAL || err == unix.EOPNOTSUPP || err == unix.ENOSYS:
			return copyByHand(to, from, in, end)
		case err != nil:
			return err
		case n == 0: // shorter than it said
			return nil
		}
	}
	return nil
}

func copyByHand(to, from int, off, end int64) error {
	buf := make([]byte, 256<<10)
	for off < end {
		n, err := unix.Pread(from, buf[:min(int64(len(buf)), end-off)], off)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		for b := buf[:n]; len(b) > 0; {
			w, err := unix.Pwrite(to, b, off)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return err
			}
			b, off = b[w:], off+int64(w)
		}
	}
	return nil
}

// attributes gives the object name of the directory to, or with no name the directory itself, what
// the node has. The owner comes before mode and attributes, which a change of owner would take
// away; the times last.
func (c *copier) attributes(n *overlay.Node, a *overlay.Attr, to int, name, at string) error {
	if err := layer.Chown(to, name, int(a.Uid), int(a.Gid)); err != nil {
		return fmt.Errorf("owner %d:%d: %w", a.Uid, a.Gid, err)
	}
	if a.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := layer.Chmod(to, name, uint32(a.Mode)&0o7777); err != nil {
			return fmt.Errorf("mode %o: %w", a.Mode&0o7777, err)
		}
	}
	if err := c.xattrs(n, to, name, at); err != nil {
		return err
	}
	ts := [2]unix.Timespec{timespec(a.Atime), timespec(a.Mtime)}
	if err := layer.Utimens(to, name, &ts); err != nil {
		return fmt.Errorf("times: %w", err)
	}
	return nil
}

func timespec(t unix.StatxTimestamp) unix.Timespec {
	return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)}
}

// maxXattr is the most that one attribute can hold.
const maxXattr = 64 << 10

func (c *copier) xattrs(n *overlay.Node, to int, name, at string) error {
	size, err := c.fs.Listxattr(n, nil)
	if err != nil || size == 0 {
		return err
	}
	list := make([]byte, size)
	if size, err = c.fs.Listxattr(n, list); err != nil {
		return err
	}
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(list[:size]), "\x00"), "\x00") {
		if attr == "" {
			continue
		}
		val := make([]byte, maxXattr)
		size, err := c.fs.Getxattr(n, attr, val)
		if err == unix.ENODATA {
			continue
		}
		if err == nil {
			err = layer.Setxattr(to, name, attr, val[:size], 0)
		}
		if err == unix.EOPNOTSUPP || err == unix.EPERM && strings.HasPrefix(attr, "trusted.") {
			c.out.Left = append(c.out.Left, fmt.Sprintf("/%s: the attribute %s cannot be set here", at, attr))
			continue
		}
		if err != nil {
			return fmt.Errorf("attribute %s: %w", attr, err)
		}
	}
	return nil
}
