package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

const (
	copyBuffer = 128 << 10
	// holeSize is what a run of zeros must have to become a hole of the file.
	holeSize = 4 << 10

	paxXattr  = "SCHILY.xattr."
	paxSparse = "GNU.sparse."
)

// file makes a regular file.
func (u *unpacker) file(fd int, name, base string, h *tar.Header) error {
	if err := u.fits(h.Size); err != nil {
		return err
	}
	f, err := layer.Open(fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if sparse(h) {
		err = u.copy(f, h.Size)
	} else {
		// The recipe names the file instead of holding its contents.
		err = u.rec.file(name, h.Size, func() error { return u.copy(f, h.Size) })
	}
	if e := unix.Close(f); err == nil && e != nil {
		err = e
	}
	u.out.Size += h.Size
	return err
}

func sparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, paxSparse) {
			return true
		}
	}
	return false
}

// fits refuses early what cannot end well. Zeros take no room, so that only a size
// larger than any filesystem is refused by the number alone.
func (u *unpacker) fits(size int64) error {
	if size < 0 || size > 1<<50 {
		return fmt.Errorf("an impossible size of %d bytes", size)
	}
	return nil
}

// copy copies size bytes to the file f, zeros as holes.
func (u *unpacker) copy(f int, size int64) error {
	var off int64
	for off < size {
		if err := u.rec.ctx.Err(); err != nil { // a hole of a sparse file is not read from anywhere
			return err
		}
		b := u.buf[:min(int64(len(u.buf)), size-off)]
		n, err := io.ReadFull(u.tar, b)
		if err != nil {
			return plainEOF(err)
		}
		if err := writeData(f, b[:n], off); err != nil {
			return err
		}
		off += int64(n)
	}
	if n, err := u.tar.Read(u.buf[:1]); n != 0 || err != io.EOF {
		if err != nil && err != io.EOF {
			return plainEOF(err)
		}
		return errors.New("more contents than the size says")
	}
	return unix.Ftruncate(f, size)
}

var zeros [holeSize]byte

// writeData writes those blocks of b that are not zeros.
func writeData(f int, b []byte, off int64) error {
	for len(b) > 0 {
		n := 0
		for n < len(b) && !isHole(b[n:]) {
			n += min(holeSize, len(b)-n)
		}
		for done := 0; done < n; {
			w, err := unix.Pwrite(f, b[done:n], off+int64(done))
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return err
			}
			if w == 0 {
				return unix.EIO
			}
			done += w
		}
		if n < len(b) {
			n += holeSize
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

func isHole(b []byte) bool { return len(b) >= holeSize && bytes.Equal(b[:holeSize], zeros[:]) }

// attributes gives an object what the header says: owner, attributes, mode, times, in an
// order in which none takes another away.
func (u *unpacker) attributes(fd int, name string, h *tar.Header) error {
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= math.MaxUint32 || int64(h.Gid) >= math.MaxUint32 {
		return fmt.Errorf("impossible owner %d:%d", h.Uid, h.Gid)
	}
	uid, gid := h.Uid, h.Gid
	if u.OneOwner && uid|gid != 0 {
		if !u.squashed {
			u.squashed = true
			u.note("owners other than 0:0 are left out: /etc/subuid and /etc/subgid give you no ids for them, or newuidmap is missing")
		}
		uid, gid = 0, 0
	}
	if err := layer.Chown(fd, name, uid, gid); err == unix.EINVAL || err == unix.EPERM {
		return fmt.Errorf("owner %d:%d does not exist in this user namespace: give the user more subordinate ids (/etc/subuid, /etc/subgid): %w", h.Uid, h.Gid, err)
	} else if err != nil {
		return fmt.Errorf("owner: %w", err)
	}
	if err := u.xattrs(fd, name, h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := layer.Chmod(fd, name, uint32(h.Mode)&0o7777); err != nil {
			return fmt.Errorf("mode: %w", err)
		}
	}
	mtime := timespec(h.ModTime)
	atime := mtime
	if !h.AccessTime.IsZero() {
		atime = timespec(h.AccessTime)
	}
	if err := layer.Utimens(fd, name, &[2]unix.Timespec{atime, mtime}); err != nil {
		return fmt.Errorf("times: %w", err)
	}
	return nil
}

func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

func (u *unpacker) xattrs(fd int, name string, h *tar.Header) error {
	var keys []string
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, paxXattr) {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	for _, key := range keys {
		attr := attrName(strings.TrimPrefix(key, paxXattr), u.Namespace)
		if attr == "" {
			continue
		}
		err := layer.Setxattr(fd, name, attr, []byte(h.PAXRecords[key]), 0)
		if err == unix.ENOSPC && u.hasRoom() {
			err = unix.E2BIG // ext4: not in this inode
		}
		switch err {
		case nil:
		case unix.EPERM, unix.EOPNOTSUPP, unix.EINVAL, unix.ERANGE, unix.E2BIG:
			u.note("%s: attribute %s left out: %v", printable(h.Name), printable(attr), err)
		default:
			return fmt.Errorf("attribute %s: %w", printable(attr), err)
		}
	}
	return nil
}

// hasRoom tells whether the filesystem has room left.
func (u *unpacker) hasRoom() bool {
	var st unix.Statfs_t
	return unix.Fstatfs(u.root, &st) == nil && st.Bavail*uint64(st.Bsize) > 1<<20
}

// header returns m in the form of an archive's.
func (m *Meta) header() *tar.Header {
	h := &tar.Header{Typeflag: tar.TypeDir, Mode: int64(m.Mode), Uid: m.UID, Gid: m.GID, ModTime: time.Unix(0, m.Mtime)}
	if len(m.Xattrs) > 0 {
		h.PAXRecords = map[string]string{}
		for k, v := range m.Xattrs {
			h.PAXRecords[paxXattr+k] = string(v)
		}
	}
	return h
}
