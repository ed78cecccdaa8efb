package fusefs

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// advice says what a listing should carry.
type advice uint8

const (
	adviceAttrs advice = iota // names and attributes
	adviceNames               // names only (attributes of subdirectories still)
)

// hints guess, caller by caller, whether attributes are wanted with the names.
//
// The kernel does not tell whether the attributes of a listing were used: a stat
// that finds them in its cache is no request. What shows is the opposite, LOOKUPs of
// names that a listing gave without attributes. So each caller (a thread id) is in
// one of these states:
//
//	unknown ── lists ──► got attributes, to be on the safe side
//	first   ── lists ──► gets names only, as a probe; subdirectories keep their
//	                     attributes, because a walk visits them anyway
//	probe   ── lists on without having looked up ──► names
//	wants   ── attributes always
//	names   ── names only
//
// and from probe or names to wants when it looks up one in eight of the files of
// the listing it got last. `ls -l` and `git status` are in wants after one
// directory or a part of a large one, `find -name` in names. The table is small:
// callers that meet in a slot only lose a guess, and a wrong guess costs time,
// never an answer.
type hints struct {
	slots [256]hint
}

type hint struct {
	caller atomic.Uint32 // thread id, 0 if free
	state  atomic.Uint32
	dir    atomic.Uint64 // listed last without attributes
	files  atomic.Uint32 // names in that listing that are not directories
	seen   atomic.Uint32 // of which looked up since

	// Listed last, in whatever form; see hints.read.
	last      atomic.Uint64
	lastFiles atomic.Int32 // names in it that are not directories
	reads     atomic.Int32 // files read since, less attributes asked for
}

const (
	hintUnknown = iota
	hintFirst
	hintProbe
	hintNames
	hintWants
)

// hintShare: one name in so many looked up means that attributes are wanted.
const hintShare = 8

func (h *hints) slot(tid uint32) *hint {
	return &h.slots[(tid*2654435761)>>24]
}

// advise is asked before a part of a directory is listed.
func (h *hints) advise(tid uint32) advice {
	t := h.slot(tid)
	if t.caller.Load() != tid {
		t.caller.Store(tid)
		t.state.Store(hintUnknown)
		t.dir.Store(0)
		return adviceAttrs
	}
	switch t.state.Load() {
	case hintUnknown, hintWants:
		return adviceAttrs
	}
	return adviceNames
}

// listed is told what the listing from offset off gave: files is the number of names other than
// directories, none of which says nothing.
func (h *hints) listed(tid uint32, dir, off uint64, given advice, files int) {
	t := h.slot(tid)
	if t.caller.Load() != tid {
		return
	}
	if off == 0 {
		t.last.Store(dir)
		t.lastFiles.Store(0)
		t.reads.Store(0)
	}
	t.lastFiles.Add(int32(files))
	if files == 0 {
		return
	}
	switch state := t.state.Load(); {
	case state == hintUnknown:
		t.state.Store(hintFirst)
	case given == adviceAttrs:
		return
	case state == hintFirst:
		t.state.Store(hintProbe)
	case state == hintProbe:
		t.state.Store(hintNames)
	}
	if given == adviceNames {
		t.dir.Store(dir)
		t.files.Store(uint32(files))
		t.seen.Store(0)
	}
}

// looked is told of every LOOKUP that found something.
func (h *hints) looked(tid uint32, dir uint64, mode uint32) {
	t := h.slot(tid)
	if t.dir.Load() != dir || t.caller.Load() != tid || mode&unix.S_IFMT == unix.S_IFDIR {
		return
	}
	if t.seen.Add(1)*hintShare >= t.files.Load() {
		t.state.Store(hintWants)
		t.dir.Store(0)
	}
}

// staleLeast and half of the files of a directory must have been read before it is worth listing anew.
const staleLeast = 4

// read is told of the first READ of a file, after which the kernel does not know the file's access time
// any more and asks for its attributes when it is next looked at. It returns the directory, once, in which
// that now goes for so many files that listing it with attributes costs less; else 0.
func (h *hints) read(tid uint32) (dir uint64) {
	t := h.slot(tid)
	if t.caller.Load() != tid {
		return 0
	}
	if t.reads.Add(1) == max(staleLeast, (t.lastFiles.Load()+1)/2) {
		return t.last.Load()
	}
	return 0
}

// asked is told that attributes were asked for: of a file just read, they are known again (tar).
func (h *hints) asked(tid uint32) {
	if t := h.slot(tid); t.caller.Load() == tid {
		t.reads.Add(-1)
	}
}

// staleMost bounds staleDirs.
const staleMost = 1 << 14

// staleDirs are the directories whose next listing is to carry attributes, whoever asks. The
// kernel was told to forget their names.
type staleDirs struct {
	mu   sync.Mutex
	dirs map[uint64]struct{}
}

func (d *staleDirs) add(dir uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dirs == nil || len(d.dirs) >= staleMost {
		d.dirs = map[uint64]struct{}{} // only a guess is lost
	}
	d.dirs[dir] = struct{}{}
}

func (d *staleDirs) has(dir uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.dirs[dir]
	return ok
}

func (d *staleDirs) remove(dir uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.dirs, dir)
}
