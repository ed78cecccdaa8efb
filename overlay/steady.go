package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
)

// Completing an unfinished file writes to it and puts back its attributes, block by
// block (see cow.Engine.Look). Everything that looks at or changes attributes
// of the upper goes through here, so that neither is disturbed.

// unsettled says whether there may be unfinished files at all.
func (fs *FS) unsettled() bool { return fs.eng != nil && fs.eng.Unfinished() > 0 }

// statPlace is statx(2) of the object at p. n.mu is held.
func (fs *FS) statPlace(n *Node, p pin, a *Attr) error {
	if n.typ != unix.S_IFREG || !n.upper.Load() || !fs.unsettled() {
		return layer.Stat(p.fd, p.name, a)
	}
	return fs.eng.Look(a, func() error { return layer.Stat(p.fd, p.name, a) })
}

// changing calls f, which changes attributes of the object at p, whose inode number is ino, 0 if that is not known.
// n.mu is held.
func (fs *FS) changing(n *Node, p pin, ino uint64, f func() error) error {
	if n.typ != unix.S_IFREG || !fs.unsettled() {
		return f()
	}
	if ino == 0 {
		var st Attr
		if err := layer.Stat(p.fd, p.name, &st); err != nil {
			return err
		}
		ino = st.Ino
	}
	return fs.eng.Change(ino, f)
}

// owedBlocks returns the space of the lower file that n, of the upper, completes; 0 if
// it is not unfinished. n is new.
func (fs *FS) owedBlocks(n *Node) uint64 {
	p, err := n.place()
	if err != nil {
		return 0
	}
	defer p.done()
	rec, err := fs.eng.ReadRecord(p.fd, p.name)
	if err != nil || rec == nil {
		return 0
	}
	var st Attr
	if fs.statRecorded(rec, &st) != nil {
		return uint64(rec.Valid+511) / 512
	}
	return st.Blocks
}

func (fs *FS) statRecorded(rec *cow.Record, st *Attr) error {
	dir, name, err := fs.resolveRecord(rec)
	if err != nil {
		return err
	}
	fd, err := dir.FD()
	if err != nil {
		return err
	}
	defer dir.Done()
	return layer.Stat(fd, name, st)
}

// wasFinished says whether n is known to have been unfinished and to be so no more.
func (n *Node) wasFinished() bool {
	o := n.file.Load()
	if o == nil || !o.hold() {
		return false
	}
	defer o.done()
	return o.partial == nil && o.upper || o.partial != nil && o.partial.Finished()
}
