package whiteout

import (
	"encoding/binary"
	"encoding/hex"
	"errors"

	"golang.org/x/sys/unix"
)

// Origin names the lower inode that an upper one was copied up from: a file handle, and
// the filesystem it belongs to. On disk it is struct ovl_fb of fs/overlayfs/overlayfs.h:
//
//	byte 0     version, 0
//	byte 1     magic, 0xfb
//	byte 2     length of the whole
//	byte 3     flags: 1 big endian, 2 any endian, 4 of an upper object
//	byte 4     type of the handle
//	byte 5-20  uuid of the filesystem
//	byte 21-   the handle
type Origin struct {
	Flags uint8 // without the endianness bits
	Type  uint8
	UUID  [16]byte
	FID   []byte
}

const (
	originHeader = 21
	originMax    = 21 + 128

	flagBigEndian = 1
	flagAnyEndian = 2
	// OriginUpper is set in Flags when the handle is of an upper object.
	OriginUpper = 4
)

var errOrigin = errors.New("bad origin")

func nativeFlags() uint8 {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return flagBigEndian
	}
	return 0
}

// ParseOrigin reads the origin attribute. A record of a machine with the other byte
// order, or of an unknown version, is an error: the kernel ignores it.
func ParseOrigin(v []byte) (Origin, error) {
	if len(v) <= originHeader || len(v) > originMax || v[0] != 0 || v[1] != 0xfb || int(v[2]) != len(v) {
		return Origin{}, errOrigin
	}
	flags := v[3]
	if flags&^(flagBigEndian|flagAnyEndian|OriginUpper) != 0 {
		return Origin{}, errOrigin
	}
	if flags&flagAnyEndian == 0 && flags&flagBigEndian != nativeFlags() {
		return Origin{}, errOrigin
	}
	o := Origin{Flags: flags & OriginUpper, Type: v[4], FID: append([]byte(nil), v[originHeader:]...)}
	copy(o.UUID[:], v[5:originHeader])
	return o, nil
}

// Encode is the inverse of ParseOrigin; nil for a handle that does not fit.
func (o Origin) Encode() []byte {
	size := originHeader + len(o.FID)
	if len(o.FID) == 0 || size > originMax {
		return nil
	}
	v := make([]byte, size)
	v[1], v[2], v[3], v[4] = 0xfb, byte(size), o.Flags&OriginUpper|nativeFlags(), o.Type
	copy(v[5:], o.UUID[:])
	copy(v[originHeader:], o.FID)
	return v
}

// IndexName returns the name of the inode's entry in the index: the record in
// hexadecimal (kernel: ovl_get_index_name).
func (o Origin) IndexName() string { return hex.EncodeToString(o.Encode()) }

// Handle types of include/linux/exportfs.h whose inode number is known to us.
const (
	fidIno32Gen       = 0x01
	fidIno32GenParent = 0x02
	fidIno64Gen       = 0x81
	fidIno64GenParent = 0x82
	fidBtrfs          = 0x4d
	fidBtrfsParent    = 0x4e
	fidBtrfsParRoot   = 0x4f
)

// Ino returns the inode number in the handle, for the filesystems whose handles
// say it: ext4, xfs, btrfs, tmpfs, erofs and others that use the generic formats. Magic is the type of the
// filesystem, of statfs(2): some types of handles mean something else there.
func (o Origin) Ino(magic int64) (uint64, bool) {
	switch {
	case magic == unix.ISOFS_SUPER_MAGIC:
		return 0, false // a block, and an offset in it
	case magic == unix.EROFS_SUPER_MAGIC_V1 && o.Type == fidIno64Gen && len(o.FID) >= 8: // the high half first
		return uint64(binary.NativeEndian.Uint32(o.FID))<<32 | uint64(binary.NativeEndian.Uint32(o.FID[4:])), true
	}
	switch o.Type {
	case fidIno32Gen:
		switch len(o.FID) {
		case 8: // ino, generation
			return uint64(binary.NativeEndian.Uint32(o.FID)), true
		case 12: // tmpfs: generation, ino, high half of ino
			lo := uint64(binary.NativeEndian.Uint32(o.FID[4:]))
			return lo | uint64(binary.NativeEndian.Uint32(o.FID[8:]))<<32, true
		}
	case fidIno32GenParent:
		if len(o.FID) >= 8 {
			return uint64(binary.NativeEndian.Uint32(o.FID)), true
		}
	case fidIno64Gen, fidIno64GenParent, fidBtrfs, fidBtrfsParent, fidBtrfsParRoot:
		if len(o.FID) >= 8 {
			return binary.NativeEndian.Uint64(o.FID), true
		}
	}
	return 0, false
}
