package cow

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ext4 and XFS allocate space for a block before its data goes there, and note afterwards that it was written. Where
// the power fails in between, the block is allocated and reads as zeros. SEEK_DATA takes that for a hole, until it is
// in the page cache, by reading ahead for instance: then it takes it for data, since data that is still to be
// written back looks just so. FIEMAP tells them apart.

// fiemap is struct fiemap of linux/fiemap.h, with room for extents.
type fiemap struct {
	start, length           uint64
	flags, mapped, count, _ uint32
	extents                 [64]fiemapExtent
}

type fiemapExtent struct {
	logical, physical, length uint64
	_                         [2]uint64
	flags                     uint32
	_                         [3]uint32
}

const (
	ioctlFiemap     = 0xc020660b // FS_IOC_FIEMAP
	fiemapSync      = 1          // FIEMAP_FLAG_SYNC
	fiemapLast      = 1          // FIEMAP_EXTENT_LAST
	fiemapUnwritten = 0x800      // FIEMAP_EXTENT_UNWRITTEN
)

// unwritten returns, in order, the stretches of the file fd between from and to that are allocated and have no data.
// None where the filesystem does not say. Nobody writes there meanwhile.
func unwritten(fd int, from, to int64) ([]span, error) {
	found, err := mapUnwritten(fd, from, to, 0)
	if len(found) > 0 {
		// Or the data is on its way to the disk.
		found, err = mapUnwritten(fd, from, to, fiemapSync)
	}
	return found, err
}

func mapUnwritten(fd int, from, to int64, flags uint32) ([]span, error) {
	var found []span
	m := new(fiemap)
	for from < to {
		m.start, m.length, m.flags, m.count = uint64(from), uint64(to-from), flags, uint32(len(m.extents))
		err := ignoringEINTR(func() error {
			if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlFiemap, uintptr(unsafe.Pointer(m))); e != 0 {
				return e
			}
			return nil
		})
		switch err {
		case nil:
		case unix.EOPNOTSUPP, unix.ENOTTY, unix.EBADR: // no such map, or none after a sync
			return nil, nil
		default:
			return nil, err
		}
		for _, x := range m.extents[:m.mapped] {
			from = int64(x.logical + x.length)
			if x.flags&fiemapUnwritten != 0 {
				found = append(found, span{int64(x.logical), from})
			}
			if x.flags&fiemapLast != 0 {
				return found, nil
			}
		}
		if m.mapped < uint32(len(m.extents)) {
			return found, nil
		}
	}
	return found, nil
}

// without returns what of s is in none of the holes, which are in order.
func without(s span, holes []span) (left []span) {
	for _, h := range holes {
		if h.to <= s.from || h.from >= s.to {
			continue
		}
		if h.from > s.from {
			left = append(left, span{s.from, h.from})
		}
		s.from = h.to
	}
	if s.from < s.to {
		left = append(left, s)
	}
	return left
}
