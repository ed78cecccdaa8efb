package overlay

import (
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// nameIndex is the merged list of names of one directory, read once from all its
// layers and kept up to date by every change. A listing gives offsets into it, which
// stay valid while names come and go. It is built and extended under
// directory.names as described there, and forgotten when nobody asked for a while.
type nameIndex struct {
	ents   []indexEntry     // in the order of offsets
	next   uint64           // offset of the next entry
	byName map[string]int32 // made when first needed
	mu     sync.Mutex       // guards the making of byName
}

type indexEntry struct {
	name  string
	off   uint64   // offset after this entry; increases, and is not used again
	ino   uint64   // in the layer
	view  uint64   // number to show, 0: not known yet; atomic
	more  []uint16 // a directory: further parts that have it
	part  uint16   // 0 the upper, i the lower i-1
	typ   uint8
	state uint8
	// under: of a name that the upper has, or hides: it would show through from below otherwise. The
	// topmost lower that has the name or a whiteout decides that, and has when below is set.
	under, below bool
}

// through says whether the name would show through from below if the upper did not have it (kernel:
// ovl_lower_positive).
func (e *indexEntry) through() bool { return e.under || e.part > 0 && e.state == entryLive }

const (
	entryLive = iota
	entryWhiteout
	entryGone
)

func (e *indexEntry) isDir() bool { return e.typ == unix.DT_DIR }

// firstOffset is the offset of the first entry of nameIndex.ents: 1 and 2 are
// those of "." and "..".
const firstOffset = 3

// push appends an entry.
func (x *nameIndex) push(e indexEntry) {
	if x.next == 0 {
		x.next = firstOffset
	}
	e.off = x.next
	x.next++
	x.ents = append(x.ents, e)
	if x.byName != nil {
		x.byName[e.name] = int32(len(x.ents) - 1)
	}
}

// indexMax is the number of entries, over all directories, above which indexes that
// nobody used lately are forgotten; indexIdle is what lately means, in seconds.
const (
	indexMax  = 100_000
	indexIdle = 30
	// indexParts is the number of parts from which a lookup is worth an index.
	indexParts = 3
)

// indexes knows which directories have one.
type indexes struct {
	mu    sync.Mutex
	dirs  map[*Node]int
	total int
}

func (x *nameIndex) get(name string) *indexEntry {
	x.mu.Lock()
	if x.byName == nil {
		x.byName = make(map[string]int32, len(x.ents))
		for i := range x.ents {
			if x.ents[i].state != entryGone {
				x.byName[x.ents[i].name] = int32(i)
			}
		}
	}
	i, ok := x.byName[name]
	x.mu.Unlock()
	if !ok {
		return nil
	}
	return &x.ents[i]
}

// wantIndex says whether a lookup in parent goes through the index.
func (fs *FS) wantIndex(parent *Node) bool {
	d := parent.d
	if fs.cfg.LowersChange {
		return false
	}
	if x := d.index.Load(); x != nil {
		return d.merged() || x.byNameKnown()
	}
	parts := len(d.lowers)
	if d.upper.Load() != nil {
		parts++
	}
	return parts >= indexParts
}

// Programs look for names that are missing (headers, modules, commands), often for many in one directory. A miss costs a
// system call; a list, once read, answers without. So it is read when misses have cost about as much as reading will:
// from missesMin on, looked at whenever their number is a power of two, if there is one for missesWorth names. A name takes
// at least nameSize bytes of a directory's size on every filesystem.
const (
	missesMin   = 16
	missesWorth = 16
	nameSize    = 16
)

// missed is told of a name that the parts of parent do not have, found out without an index. parent.d.names is held.
func (fs *FS) missed(parent *Node) {
	d := parent.d
	count := int64(d.misses.Add(1))
	if count < missesMin || count&(count-1) != 0 || fs.cfg.LowersChange {
		return
	}
	var buf [indexParts]*layer.Dir
	var size int64
	for _, part := range d.parts(buf[:0]) {
		fd, err := part.FD()
		if err != nil {
			return
		}
		var st Attr
		err = layer.Stat(fd, "", &st)
		part.Done()
		if err != nil {
			return
		}
		size += int64(st.Size)
	}
	if size/nameSize > count*missesWorth {
		return
	}
	if x, err := fs.indexOf(parent); err == nil { // else the next lookup meets the error
		x.get("") // from now on by name
	}
}

func (x *nameIndex) byNameKnown() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.byName != nil
}

// indexOf returns the index of n, read if need be. n.d.names is held.
func (fs *FS) indexOf(n *Node) (*nameIndex, error) {
	d := n.d
	d.indexUse.Store(time.Now().Unix())
	if x := d.index.Load(); x != nil {
		return x, nil
	}
	d.building.Lock()
	defer d.building.Unlock()
	if x := d.index.Load(); x != nil {
		return x, nil
	}
	x, err := fs.readNames(d)
	if err != nil {
		return nil, err
	}
	d.index.Store(x)
	fs.dirs.add(fs, n, len(x.ents))
	return x, nil
}

// readNames merges the listings of all parts (kernel: ovl_dir_read_merged).
func (fs *FS) readNames(d *directory) (*nameIndex, error) {
	x := new(nameIndex)
	grown := entryBuffers.Get().(*[]indexEntry)
	x.ents = *grown
	err := fs.readParts(d, x)
	*grown, x.ents = x.ents, slices.Clone(x.ents)
	if cap(*grown) <= entriesKept {
		clear(*grown) // keeps no names alive
		*grown = (*grown)[:0]
		entryBuffers.Put(grown)
	}
	if err != nil {
		return nil, err
	}
	return x, nil
}

// entryBuffers are where listings grow: an index takes the memory of its entries, and no more. Bigger ones than
// entriesKept, in entries, are left to the collector.
var entryBuffers = sync.Pool{New: func() any { return new([]indexEntry) }}

const entriesKept = 4096

func (fs *FS) readParts(d *directory, x *nameIndex) error {
	single := !d.merged() || d.upper.Load() == nil && len(d.lowers) == 1
	if !single {
		x.byName = map[string]int32{}
	}
	closed := map[int32]bool{} // directories that do not merge with what is below
	if u := d.upper.Load(); u != nil {
		if err := fs.readPart(d, x, u, 0, single, closed); err != nil {
			return err
		}
	}
	for i, l := range d.lowers {
		if err := fs.readPart(d, x, l, uint16(i+1), single, closed); err != nil {
			return err
		}
	}
	return nil
}

func (fs *FS) readPart(d *directory, x *nameIndex, part *layer.Dir, number uint16, single bool, closed map[int32]bool) error {
	fd, err := part.FD()
	if err != nil {
		return err
	}
	defer part.Done()
	var names arena
	var wh []string // .wh. files hide names of the parts below, not of their own
	overridden := fs.overrides[part.Tree()] != ""
	err = layer.ReadDirFunc(fd, func(raw []byte, ino uint64, typ uint8) error {
		if len(raw) > 4 && raw[0] == '.' && raw[1] == 'w' && raw[2] == 'h' && raw[3] == '.' {
			if target, ok := whiteout.AUFSTarget(string(raw)); ok {
				wh = append(wh, target)
				return nil
			}
			return nil // .wh..wh.*: marks and housekeeping of AUFS
		}
		if typ == unix.DT_UNKNOWN || typ == unix.DT_CHR || typ == unix.DT_REG && (overridden || fs.xwhite || d.xwhiteouts.Load()) {
			var st Attr
			if err := layer.Stat(fd, string(raw), &st); err != nil {
				return nil // gone meanwhile
			}
			if fs.isWhiteout(d, fd, string(raw), &st) {
				typ = unix.DT_WHT
			} else {
				fs.retypeAt(part.Tree(), fd, string(raw), &st)
				typ = uint8(st.Mode >> 12)
			}
		}
		if !single {
			if i, ok := x.byName[string(raw)]; ok {
				e := &x.ents[i]
				if e.part == 0 && !e.below {
					e.below, e.under = true, typ != unix.DT_WHT
				}
				if e.part != number && e.state == entryLive && e.isDir() && !closed[i] {
					if typ == unix.DT_DIR {
						e.more = append(e.more, number)
					} else {
						closed[i] = true
					}
				}
				return nil
			}
		}
		e := indexEntry{name: names.keep(raw), ino: ino, part: number, typ: typ}
		if typ == unix.DT_WHT {
			e.state = entryWhiteout
		}
		x.push(e)
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range wh {
		x.hide(name, number, single, closed)
	}
	return nil
}

// hide applies a .wh. file of the part number, all of whose names are there already: they stay.
func (x *nameIndex) hide(name string, number uint16, single bool, closed map[int32]bool) {
	if single {
		return
	}
	if i, ok := x.byName[name]; ok {
		closed[i] = true
		x.ents[i].below = x.ents[i].below || number > 0
		return
	}
	x.push(indexEntry{name: strings.Clone(name), state: entryWhiteout, typ: unix.DT_WHT, part: number})
}

// arena keeps many short names in few allocations.
type arena struct{ buf []byte }

func (a *arena) keep(b []byte) string {
	if len(a.buf)+len(b) > cap(a.buf) {
		a.buf = make([]byte, 0, max(min(2*cap(a.buf), 16<<10), 512, len(b)))
	}
	start := len(a.buf)
	a.buf = append(a.buf, b...)
	return unsafe.String(unsafe.SliceData(a.buf[start:]), len(b))
}

// add and remove keep the index as the directory is; d.names is held for writing.

func (fs *FS) indexAdd(n *Node, name string, ino uint64, typ uint8) {
	x := n.d.index.Load()
	if x == nil {
		return
	}
	under := false
	if e := x.get(name); e != nil {
		under = e.through()
		e.state = entryGone
	}
	x.push(indexEntry{name: name, ino: ino, typ: typ, under: under})
	fs.dirs.grow(n, 1)
	x.compact()
}

// indexRemove notes that a name is gone, with white by a whiteout.
func (fs *FS) indexRemove(n *Node, name string, white bool) {
	x := n.d.index.Load()
	if x == nil {
		return
	}
	e := x.get(name)
	switch {
	case e == nil:
	case white:
		e.under = e.through()
		e.state, e.more = entryWhiteout, nil
	default:
		e.state, e.more = entryGone, nil
		delete(x.byName, name)
	}
}

// compact drops removed entries when they are most of the list. The others keep
// their offsets.
func (x *nameIndex) compact() {
	if len(x.ents) < 2*len(x.byName)+1024 {
		return
	}
	kept := make([]indexEntry, 0, len(x.byName))
	for i := range x.ents {
		if e := &x.ents[i]; e.state != entryGone {
			x.byName[e.name] = int32(len(kept))
			kept = append(kept, *e)
		}
	}
	x.ents = kept
}

// indexDrop forgets the index: something changed that it cannot follow.
func (fs *FS) indexDrop(n *Node) {
	if n.d.index.Swap(nil) != nil {
		fs.dirs.remove(n)
	}
}

func (t *indexes) add(fs *FS, n *Node, size int) {
	t.mu.Lock()
	if t.dirs == nil {
		t.dirs = map[*Node]int{}
	}
	t.total += size - t.dirs[n]
	t.dirs[n] = size
	var old []*Node
	if t.total > indexMax {
		limit := time.Now().Unix() - indexIdle
		for o := range t.dirs {
			if o != n && o.d.indexUse.Load() < limit {
				old = append(old, o)
			}
		}
	}
	t.mu.Unlock()
	for _, o := range old {
		// The lock may be held by whoever lists it right now; then it stays.
		if o.d.names.TryLock() {
			fs.indexDrop(o)
			o.d.names.Unlock()
		}
	}
}

func (t *indexes) grow(n *Node, by int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.dirs[n]; ok {
		t.dirs[n] += by
		t.total += by
	}
}

func (t *indexes) remove(n *Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total -= t.dirs[n]
	delete(t.dirs, n)
}
