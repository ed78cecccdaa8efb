package differ

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

// directWrite writes whole blocks of 4 KiB by O_DIRECT.
func (v *view) directWrite(p string, off, blocks, seed int64) error {
	return v.with(p, unix.O_WRONLY|unix.O_DIRECT, func(h handle) error {
		return aligned(blocks, func(b []byte) error {
			copy(b, fill(int64(len(b)), seed))
			return writeAll(h, b, off<<12)
		})
	})
}

// directRead reads whole blocks by O_DIRECT.
func (v *view) directRead(p string, off, blocks int64) (out string, err error) {
	err = v.with(p, unix.O_RDONLY|unix.O_DIRECT, func(h handle) error {
		return aligned(blocks, func(b []byte) error {
			n, err := h.pread(b, off<<12)
			out = sum(b[:max(n, 0)])
			return err
		})
	})
	return out, err
}

// aligned runs f with a buffer of whole pages.
func aligned(blocks int64, f func(b []byte) error) error {
	b, err := unix.Mmap(-1, 0, int(blocks)<<12, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(b) }()
	return f(b)
}

// mapWrite writes through a shared mapping, as far as the file goes.
func (v *view) mapWrite(p string, off, size, seed int64) error {
	return v.with(p, unix.O_RDWR, func(h handle) error {
		st, err := h.stat()
		if err != nil {
			return err
		}
		if size = min(size, st.Size-off); size <= 0 {
			return nil
		}
		sys, ok := h.(*sysHandle)
		if !ok {
			return writeAll(h, fill(size, seed), off)
		}
		from := off &^ 4095
		b, err := unix.Mmap(sys.fd, from, int(off-from+size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		copy(b[off-from:], fill(size, seed))
		return unix.Munmap(b)
	})
}

// aclOf encodes an access list (linux/posix_acl_xattr.h). In text it is entries of tag, id and permissions, as
// u=6,u1001=4,g=4,g1=6,m=6,o=4.
func aclOf(text string) []byte {
	tags := map[string][2]uint16{"u": {1, 2}, "g": {4, 8}, "m": {16}, "o": {32}}
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for entry := range strings.SplitSeq(text, ",") {
		who, perm, _ := strings.Cut(entry, "=")
		tag, id := tags[who[:1]][0], uint32(1<<32-1)
		if len(who) > 1 {
			tag, id = tags[who[:1]][1], uint32(num(who[1:]))
		}
		b = binary.LittleEndian.AppendUint16(b, tag)
		b = binary.LittleEndian.AppendUint16(b, uint16(num(perm)))
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return b
}

var aclNames = map[string]string{"acl": "system.posix_acl_access", "dacl": "system.posix_acl_default"}
