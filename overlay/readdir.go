package overlay

import (
	"sort"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ReadDir fills buf with entries of directory n after offset off (0 for the first) and
// returns how many; 0 at the end. "." and ".." come first. An offset stays good while
// names come and go: those that were there all the time are listed once.
func (fs *FS) ReadDir(n *Node, off uint64, buf []Entry) (int, error) {
	if n.d == nil {
		return 0, unix.ENOTDIR
	}
	n.d.names.RLock()
	defer n.d.names.RUnlock()
	got := 0
	if off < 1 && got < len(buf) {
		buf[got] = Entry{Name: ".", Ino: n.ino.Load(), Type: unix.DT_DIR, Off: 1}
		got++
	}
	if off < 2 && got < len(buf) {
		buf[got] = Entry{Name: "..", Ino: fs.parentIno(n), Type: unix.DT_DIR, Off: 2}
		got++
	}
	if got == len(buf) {
		return got, nil
	}
	if n != fs.root && fs.unlinked(n) {
		return got, nil // as the kernel lists a removed directory
	}
	if fs.cfg.LowersChange && off <= 2 {
		if err := fs.relist(n); err != nil {
			return 0, err
		}
	}
	x, err := fs.indexOf(n)
	if err != nil {
		return 0, err
	}
	i := sort.Search(len(x.ents), func(i int) bool { return x.ents[i].off > off })
	for ; i < len(x.ents) && got < len(buf); i++ {
		e := &x.ents[i]
		if e.state != entryLive {
			continue
		}
		buf[got] = Entry{Name: e.name, Ino: fs.entryIno(n, e), Type: e.typ, Off: e.off}
		got++
	}
	return got, nil
}

func (fs *FS) parentIno(n *Node) uint64 {
	fs.nodes.mu.Lock()
	defer fs.nodes.mu.Unlock()
	if n.parent != nil {
		return n.parent.ino.Load()
	}
	return n.ino.Load()
}

func (fs *FS) unlinked(n *Node) bool {
	fs.nodes.mu.Lock()
	defer fs.nodes.mu.Unlock()
	return n.parent == nil
}

// entryIno returns the inode number that a stat of the entry would show. For most
// entries it is the layer's own; for an upper entry that may stand for something
// lower the name is looked up.
func (fs *FS) entryIno(n *Node, e *indexEntry) uint64 {
	d := n.d
	parted := d.parted.Load() && !e.isDir()
	if v := atomic.LoadUint64(&e.view); v != 0 && !parted {
		return v
	}
	var v uint64
	switch {
	case e.part > 0 && !parted:
		// Also of a hard link whose inode was copied up under another name.
		v = fs.viewIno(d.lowers[e.part-1].Tree(), e.ino)
	case !d.impure.Load() && !d.merged() && (e.isDir() || !fs.linkedOrigins.Load()):
		v = fs.viewIno(fs.upper, e.ino)
	default:
		if child := fs.nodes.peek(n, e.name); child != nil {
			v = child.ino.Load()
			break
		}
		var f found
		if fs.find(n, e.name, &f) != nil {
			return fs.viewIno(fs.upper, e.ino)
		}
		v = f.ino
	}
	atomic.StoreUint64(&e.view, v)
	return v
}
