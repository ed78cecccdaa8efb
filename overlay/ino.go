package overlay

import (
	"hash/fnv"
	"slices"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// Inode numbers of the view. An object shows the number of the object it was first:
// a file copied up that of its origin, a merged directory that of its topmost lower.
// Layers on several filesystems may use a number twice, so the filesystem is part
// of it:
//
//	63           56 55                                              0
//	┌──────────────┬─────────────────────────────────────────────────┐
//	│ filesystem   │ number of the inode on its filesystem           │
//	└──────────────┴─────────────────────────────────────────────────┘
//
// Filesystem 0 is the upper's (or the topmost lower's), so that a stack on one
// filesystem shows its numbers unchanged. A number that does not fit is
// replaced by a hash of it with bit 63 set.
const inoBits = 56

// filesystem is one of those the layers are on; its place in FS.fsys is its index.
type filesystem struct {
	dev     uint64
	uuid    [16]byte
	hasUUID bool
	lower   bool // a lower layer is on it
	shared  bool // another filesystem of the lower layers has the same uuid, or none either
}

func (fs *FS) numberFilesystems() {
	add := func(t *layer.Tree, lower bool) {
		f := filesystem{dev: t.FS.Dev, uuid: t.FS.UUID, hasUUID: t.FS.HasUUID}
		at := slices.IndexFunc(fs.fsys, func(g filesystem) bool { return g.dev == f.dev })
		if at < 0 {
			at = len(fs.fsys)
			fs.fsys = append(fs.fsys, f)
		}
		if !lower || fs.fsys[at].lower {
			return
		}
		fs.fsys[at].lower = true
		// The upper's own does not count (kernel: ovl_lower_uuid_ok): no origin is there.
		for i := range fs.fsys {
			if g := &fs.fsys[i]; i != at && g.lower && g.hasUUID == f.hasUUID && g.uuid == f.uuid {
				g.shared, fs.fsys[at].shared = true, true
			}
		}
	}
	if fs.upper != nil {
		add(fs.upper, false)
	}
	for _, t := range fs.lowers {
		add(t, true)
	}
	for _, t := range fs.datas {
		add(t, true)
	}
}

// ambiguous says whether a file handle of t, a lower, may as well mean a file of another one, on a copy of
// the same filesystem (kernel: ovl_lower_uuid_ok).
func (fs *FS) ambiguous(t *layer.Tree) bool {
	for _, other := range fs.lowers {
		if other.FS.Dev != t.FS.Dev && other.FS.HasUUID == t.FS.HasUUID && other.FS.UUID == t.FS.UUID {
			return true
		}
	}
	return false
}

// fsIndex returns the index of the filesystem of t.
func (fs *FS) fsIndex(t *layer.Tree) uint8 {
	for i := range fs.fsys {
		if fs.fsys[i].dev == t.FS.Dev {
			return uint8(min(i, 126))
		}
	}
	return 127
}

// viewIno returns the number to show for inode ino of the filesystem of t.
func (fs *FS) viewIno(t *layer.Tree, ino uint64) uint64 {
	return packIno(fs.fsIndex(t), ino)
}

func packIno(index uint8, ino uint64) uint64 {
	if ino < 1<<inoBits {
		return uint64(index)<<inoBits | ino
	}
	if index == 0 && ino < 1<<63 {
		return ino
	}
	h := fnv.New64a()
	b := [9]byte{index}
	for i := range 8 {
		b[i+1] = byte(ino >> (8 * i))
	}
	h.Write(b[:])
	return h.Sum64() | 1<<63
}

// originKey finds the inode an origin mark speaks of: the filesystem among those of
// the lower layers, and the number. A mark of another filesystem is no error, it only
// does not count (kernel: Documentation/filesystems/overlayfs.rst, "Inode properties").
func (fs *FS) originKey(o *whiteout.Origin) (linkKey, bool) {
	match, magic := -1, int64(0)
	for _, t := range fs.lowers {
		i := int(fs.fsIndex(t))
		if i >= len(fs.fsys) {
			continue
		}
		f := &fs.fsys[i]
		if f.uuid != o.UUID || f.shared {
			// Without a uuid of its own a filesystem is recognised only when no other
			// can be meant, as ovl_get_layer_id does with "bad" ones.
			if !(o.UUID == [16]byte{} && len(fs.fsys) == 1) {
				continue
			}
		}
		match, magic = i, t.FS.Magic
		break
	}
	if match < 0 {
		return linkKey{}, false
	}
	ino, ok := o.Ino(magic)
	if !ok {
		return linkKey{}, false
	}
	return linkKey{fs: uint8(match), ino: ino}, true
}

// PackIno returns the number to show for an inode of the filesystem with an index, see above.
// Who adds filesystems to a view counts down from 126, away from the layers' own.
func PackIno(index uint8, ino uint64) uint64 { return packIno(index, ino) }
