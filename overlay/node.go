package overlay

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// Node is one inode of the view: a directory merged from several layers, or one
// object of one layer. It lives from the first [FS.Lookup] that finds it until the
// last [FS.Forget]. All names of one hard-linked inode share one node.
type Node struct {
	id  uint64
	ino atomic.Uint64 // st_ino; fixed, but see breaksLinks
	typ uint32        // S_IFMT bits; fixed
	// guard says whether it is append-only or immutable, once that is known; see guard.go.
	guard atomic.Uint32

	refs uint64 // lookups, children and pins; guarded by table.mu

	// parent and name are one place of the node in the view; parent is nil when no
	// name is left, and for the root. Guarded by table.mu: a lookup by another name gives
	// a node one again without holding mu.
	parent *Node
	name   string
	links  *links // nil: has one name; guarded by table.mu

	mu sync.RWMutex // guards what follows
	// The object itself: name in dir, or, when it has no usable name any more, the
	// descriptor anchor (O_PATH, or of an O_TMPFILE file).
	dir    *layer.Dir
	real   string
	anchor int32 // -1: none
	upper  atomic.Bool
	// loose: the upper inode has its entry in the index, and no other name that is
	// known. It gets one before it changes, see FS.linkUp.
	loose atomic.Bool
	x     *extra // nil for most

	d    *directory               // nil unless typ is S_IFDIR
	file atomic.Pointer[openFile] // cached descriptor; see files.go
}

// extra is what only few nodes have. Guarded by Node.mu.
type extra struct {
	// The lower object the data comes from, when it is not the object itself: of a
	// metadata-only file. nil otherwise.
	dataDir  *layer.Dir
	dataName string
	// Space of the data that is elsewhere, in units of 512 bytes: of a metadata-only file, or
	// of an unfinished one. Shown instead of the file's own if that is less: programs
	// (tar) take a file without blocks for one that is nothing but a hole.
	blocks uint64

	index string // hard links: name of the upper inode's entry in the index, or ""
	diff  int    // link count shown minus the upper inode's
}

// links is what a hard-linked node has besides. Guarded by table.mu.
type links struct {
	key     linkKey
	aliases []alias // names besides Node.parent and Node.name that were looked up
}

type alias struct {
	parent *Node
	name   string
}

// directory is the part of a node that only directories have.
type directory struct {
	// names orders changes of names: held for writing by whatever creates, removes
	// or renames one, for reading by lookups.
	names sync.RWMutex

	upper    atomic.Pointer[layer.Dir] // nil: none. Set once, under Node.mu
	lowers   []*layer.Dir              // that merge here, topmost first; fixed while the union is in use
	children map[string]*Node          // live nodes; guarded by table.mu
	index    atomic.Pointer[nameIndex] // nil: not read. Changed with names held for writing
	building sync.Mutex                // held, under names for reading, while index is read
	indexUse atomic.Int64              // when index was last used, in seconds

	misses     atomic.Uint32 // lookups of names that are not there, without an index
	parted     atomic.Bool   // after a copy-up numbers of the index may be old
	impure     atomic.Bool   // children of the upper may have an origin mark
	xwhiteouts atomic.Bool   // some lower has opaque=x: files may be whiteouts
	defaultACL atomic.Uint32
}

// States of directory.defaultACL, in its low bits; unknown is 0. Above them is how often the
// list has changed: who saw it before a change does not say so after it.
const (
	aclNone    = 1
	aclPresent = 2
	aclStates  = 3
)

// aclChanged makes it unknown again whether there is a default access list.
func (d *directory) aclChanged() {
	for {
		v := d.defaultACL.Load()
		if d.defaultACL.CompareAndSwap(v, (v|aclStates)+1) {
			return
		}
	}
}

// ID returns the node's number: the root is 1, and no number is given twice.
func (n *Node) ID() uint64 { return n.id }

// Mode returns the type bits (S_IFMT) of the node.
func (n *Node) Mode() uint32 { return n.typ }

// Ino returns the inode number the view shows.
func (n *Node) Ino() uint64 { return n.ino.Load() }

func (n *Node) isDir() bool { return n.typ == unix.S_IFDIR }

// merged says whether lower directories show through.
func (d *directory) merged() bool { return len(d.lowers) > 0 }

// layers returns how many directories the node is merged from.
func (d *directory) layers() int {
	n := len(d.lowers)
	if d.upper.Load() != nil {
		n++
	}
	return n
}

// pin is an object's place, held open.
type pin struct {
	fd   int
	name string
	dir  *layer.Dir
}

func (p *pin) done() {
	if p.dir != nil {
		p.dir.Done()
	}
}

// place pins the real object. n.mu is held, at least for reading, until pin.done.
func (n *Node) place() (pin, error) {
	if n.anchor >= 0 {
		return pin{fd: int(n.anchor)}, nil
	}
	fd, err := n.dir.FD()
	if err != nil {
		return pin{}, err
	}
	return pin{fd: fd, name: n.real, dir: n.dir}, nil
}

// more returns n.x, made if there was none. n.mu is held for writing, or n is new.
func (n *Node) more() *extra {
	if n.x == nil {
		n.x = new(extra)
	}
	return n.x
}

// parts appends the directories n is merged from, topmost first.
func (d *directory) parts(buf []*layer.Dir) []*layer.Dir {
	if u := d.upper.Load(); u != nil {
		buf = append(buf, u)
	}
	return append(buf, d.lowers...)
}
