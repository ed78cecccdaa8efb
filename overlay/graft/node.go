package graft

import (
	"container/list"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// Node is one inode of the view. The zero Node is none.
type Node struct {
	o *overlay.Node
	g *inode
}

// ID returns the node's number: those of the overlay are unchanged, ours have bit 62 set. The
// root of the view is 1, whatever it is.
func (n Node) ID() uint64 {
	if n.g == nil {
		return n.o.ID()
	}
	return n.g.id
}

// Mode returns the type bits (S_IFMT) of the node.
func (n Node) Mode() uint32 {
	if n.g == nil {
		return n.o.Mode()
	}
	return n.g.typ
}

// Overlay returns the node of the overlay that n is, nil if it is none.
func (n Node) Overlay() *overlay.Node { return n.o }

func (n Node) isDir() bool { return n.Mode() == unix.S_IFDIR }

const (
	ourBit = 1 << 62
	rootID = 1
)

// inode is a live or a synthetic node.
type inode struct {
	id  uint64
	typ uint32
	ino uint64  // st_ino in the view
	src *source // nil: synthetic
	syn *synth  // nil: live
	key key
	top bool // root of a graft, or synthetic: its name is ours

	refs uint64 // lookups, children and pins; guarded by table.mu

	// Where it was seen last; parent is nil for roots and for what has no name. Guarded
	// by table.mu.
	parent *inode
	name   string
	elem   *list.Element // in table.idle; guarded by table.mu

	opening sync.Mutex
	desc    atomic.Pointer[desc] // O_PATH

	mu               sync.Mutex // guards what follows
	readers, writers int        // opens
	r, w, a          *desc      // for reading; writing; appending
	stash            *desc      // of a file just made: its first open gets it
}

// key identifies an inode of one source. Numbers are given again when a file is
// gone, so its birth is part of it; and the same directory mounted twice is two
// directories to the kernel that walks in it.
type key struct {
	gen      uint32 // of the source
	typ      uint16 // S_IFMT
	mount    uint64 // of directories
	dev, ino uint64
	birth    int64
}

// key returns the key of what a describes. In the kernel's overlayfs a file is born again when it is copied up.
func (s *source) key(gen uint32, a *overlay.Attr) key {
	k := key{gen: gen, typ: a.Mode & unix.S_IFMT, dev: unix.Mkdev(a.Dev_major, a.Dev_minor), ino: a.Ino}
	if a.Mask&unix.STATX_BTIME != 0 && s.ground.magic != unix.OVERLAYFS_SUPER_MAGIC {
		k.birth = a.Btime.Sec*1e9 + int64(a.Btime.Nsec)
	}
	if a.Mode&unix.S_IFMT == unix.S_IFDIR {
		k.mount = a.Mnt_id
	}
	return k
}

// desc is a shared descriptor.
type desc struct {
	fd   int
	refs atomic.Int32
}

func newDesc(fd int) *desc {
	d := &desc{fd: fd}
	d.refs.Store(1)
	return d
}

// hold adds a user, unless the descriptor is on its way out.
func (d *desc) hold() bool {
	for {
		r := d.refs.Load()
		if r == 0 {
			return false
		}
		if d.refs.CompareAndSwap(r, r+1) {
			return true
		}
	}
}

func (d *desc) done() {
	if d != nil && d.refs.Add(-1) == 0 {
		unix.Close(d.fd)
	}
}

// drop empties a slot.
func drop(slot **desc) {
	(*slot).done()
	*slot = nil
}
