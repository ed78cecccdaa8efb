package overlay

import (
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// flights are the copy-ups under way, one per node at most. While data is copied
// no lock is held: others who need the same file wait for the flight, everybody
// else goes on, readers of the file included.
type flights struct {
	mu  sync.Mutex // a leaf
	now map[*Node]chan struct{}
}

func (f *flights) init() { f.now = map[*Node]chan struct{}{} }

// begin returns nil when the caller is to do the work and to call end, else what is
// closed when somebody else has done it.
func (f *flights) begin(n *Node) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ch := f.now[n]; ch != nil {
		return ch
	}
	f.now[n] = make(chan struct{})
	return nil
}

func (f *flights) end(n *Node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.now[n])
	delete(f.now, n)
}

// need says what a caller wants of the upper file.
type need struct {
	cause cow.Cause
	size  int64 // -1: the source's
	asked int64 // bytes about to be changed
	meta  bool  // only attributes will change
	whole bool  // not by range: the kernel will write to the file by itself
	// first is where to leave the event of a copy-up by range, for the caller to publish
	// after its write; nil: it is published at once.
	first **cow.Pending
	// ino is where to leave the upper inode's number, if it comes into being now; nil: nobody asks.
	ino *uint64
}

// satisfied says whether n is already what the caller needs.
func (n *Node) satisfied(w *need) bool {
	if !n.upper.Load() || n.loose.Load() {
		return false
	}
	if w.meta || n.typ != unix.S_IFREG {
		return true
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.x == nil || n.x.dataDir == nil
}

// copyUp makes n an object of the upper. No lock is held. EINTR when the caller was hit
// by a signal while it waited or copied; then everything is as it was.
func (fs *FS) copyUp(c *Caller, n *Node, w need) error {
	var waited time.Duration
	for {
		if n.satisfied(&w) {
			return nil
		}
		if fs.upper == nil {
			return errReadOnly
		}
		if n.d != nil {
			_, err := fs.upDirFor(c, n, w.cause)
			return err
		}
		done := fs.ups.begin(n)
		if done == nil {
			break
		}
		start := time.Now()
		select {
		case <-done:
		case <-cancelOf(c):
			return unix.EINTR
		}
		waited += time.Since(start)
	}
	defer fs.ups.end(n)
	if n.satisfied(&w) {
		return nil
	}
	fs.settle.changes.Add(1)
	for {
		again, err := fs.copyUpOnce(c, n, w, waited)
		if err != nil || !again {
			return err
		}
	}
}

func cancelOf(c *Caller) <-chan struct{} {
	if c == nil {
		return nil
	}
	return c.Cancel
}

func pidOf(c *Caller) uint32 {
	if c == nil {
		return 0
	}
	return c.PID
}

// place in the view, as far as there is one.
func (fs *FS) viewPlace(n *Node) (*Node, string) {
	fs.nodes.mu.Lock()
	defer fs.nodes.mu.Unlock()
	return n.parent, n.name
}

// copyUpOnce stages the copy and commits it; true when the name moved meanwhile.
func (fs *FS) copyUpOnce(c *Caller, n *Node, w need, waited time.Duration) (bool, error) {
	if n.upper.Load() {
		if err := fs.linkUp(c, n); err != nil || w.meta {
			return false, err
		}
		return false, fs.completeMeta(c, n, w, waited)
	}
	parent, name := fs.viewPlace(n)
	var up *layer.Dir
	var err error
	if parent != nil {
		if up, err = fs.upDir(c, parent); err != nil {
			return false, err
		}
	}
	src := cow.Source{Path: fs.Path(n)}
	var entry string
	want := cow.Want{Size: w.size, MetaOnly: w.meta, Range: !w.whole, Cause: w.cause, PID: pidOf(c),
		Asked: w.asked, Wait: waited, Cancel: cancelOf(c)}
	if parent == nil || fs.cfg.LowersChange { // nobody will find it again to complete it, or it may be gone by then
		want.Range, want.MetaOnly = false, false
	}
	n.mu.RLock()
	src.Dir, src.Name = n.dir, n.real
	if n.x != nil && n.x.dataDir != nil {
		src.DataDir, src.DataName = n.x.dataDir, n.x.dataName
	}
	n.mu.RUnlock()
	fd, err := src.Dir.FD()
	if err != nil {
		return false, err
	}
	err = openSource(n, &src, fd)
	if src.FD > 0 {
		defer unix.Close(src.FD)
	}
	if err == nil {
		if src.Stat.Nlink > 1 {
			entry = fs.indexName(src.Dir, src.Name)
		}
		if src.Stat.Nlink == 1 || entry != "" { // see breaksLinks
			want.Origin = origin(src.Dir.Tree(), src.Handle)
		}
		want.Xattrs = fs.carryOver(src.Dir.Tree(), fd, src.Name, &src.Stat)
	}
	src.Dir.Done()
	if err != nil {
		return false, err
	}
	if w.cause == cow.CauseTruncate { // what is cut off or added
		want.Asked = max(w.size, int64(src.Stat.Size)) - min(w.size, int64(src.Stat.Size))
	}
	staged, err := fs.eng.Stage(&src, &want)
	if err != nil {
		return false, err
	}
	defer staged.Close()
	defer staged.Abort()

	n.mu.Lock()
	defer n.mu.Unlock()
	if p, now := fs.viewPlace(n); p != parent || now != name {
		return true, nil
	}
	if parent == nil {
		return false, fs.anchorStaged(n, staged)
	}
	var first *cow.Pending
	if w.first != nil && staged.Method == cow.MethodRange {
		first = staged.Hold()
	}
	var partial *cow.Partial
	if staged.Partial && !w.meta { // about to be written to
		partial, _ = staged.OpenPartial(src.Path) // else it is opened again, and the error met there
	}
	if err := fs.commitUp(n, parent, up, name, staged, entry, &src.Stat); err != nil {
		if partial != nil {
			partial.Close()
		}
		return false, err
	}
	if first != nil {
		*w.first = first
	}
	if w.ino != nil {
		*w.ino = staged.Stat.Ino
	}
	if partial != nil {
		fs.give(n, staged.TakeFD(), partial)
	}
	return false, nil
}

// openSource opens the lower object of n, if it is a regular file and may be opened, and fills in who it is.
// fd is its directory.
func openSource(n *Node, src *cow.Source, fd int) error {
	name := src.Name
	if n.typ == unix.S_IFREG {
		if f, err := openQuiet(fd, name); err == nil {
			src.FD, fd, name = f, f, ""
		}
	}
	if err := layer.Stat(fd, name, &src.Stat); err != nil {
		return err
	}
	src.Handle = handleOf(src.Dir.Tree(), fd, name)
	return nil
}

// commitUp gives a staged file its name, and its entry in the index if it has several.
// n.mu is held for writing.
func (fs *FS) commitUp(n, parent *Node, up *layer.Dir, name string, staged *cow.Staged, entry string, lower *Attr) error {
	fd, err := up.FD()
	if err != nil {
		return err
	}
	defer up.Done()
	var before Attr
	if err := layer.Stat(fd, "", &before); err != nil {
		return err
	}
	if entry != "" {
		if err := fs.indexStaged(staged, entry); err != nil {
			return err
		}
		fs.crash("indexed")
	}
	fs.markImpure(parent.d)
	if err := staged.Commit(fd, name, false); err != nil {
		if entry != "" {
			fs.indexUndo(entry)
		}
		return err
	}
	if entry != "" {
		if err := fs.countStaged(n, fd, name, entry, lower); err != nil {
			_ = layer.Unlink(fd, name)
			fs.indexUndo(entry)
			restoreTimes(fd, &before)
			return err
		}
	}
	restoreTimes(fd, &before)
	if staged.Method == cow.MethodMeta && (n.x == nil || n.x.dataDir == nil) {
		x := n.more()
		x.dataDir, x.dataName, x.blocks = n.dir, n.real, lower.Blocks
	}
	if staged.Method == cow.MethodRange {
		n.more().blocks = lower.Blocks
	}
	n.dir, n.real = up, name
	fs.altered.Add(1)
	if entry == "" && lower.Nlink > 1 {
		fs.breaksLinks(n, parent, staged)
	} else if entry == "" && fs.ns == whiteout.User && n.typ != unix.S_IFREG {
		parent.d.parted.Store(true) // it cannot have an origin mark
	}
	fs.becameUpper(n, staged)
	return nil
}

// breaksLinks gives a file that was parted from its other lower names, for want of an index,
// the number of its upper inode: two files must not show one. It has no origin either (kernel:
// ovl_do_copy_up, ovl_getattr).
func (fs *FS) breaksLinks(n, parent *Node, staged *cow.Staged) {
	n.ino.Store(fs.viewIno(fs.upper, staged.Stat.Ino))
	parent.d.parted.Store(true)
}

// becameUpper finishes a copy-up: the descriptor of the lower file goes. n.mu is held
// for writing.
func (fs *FS) becameUpper(n *Node, staged *cow.Staged) {
	if n.x != nil && staged.Method != cow.MethodMeta {
		n.x.dataDir = nil
	}
	n.upper.Store(true)
	fs.files.evict(n)
	if n.typ == unix.S_IFREG && !staged.Partial && staged.Method != cow.MethodMeta {
		fs.give(n, staged.TakeFD(), nil)
	}
}

// anchorStaged makes the staged copy of a file without a name the node's object.
func (fs *FS) anchorStaged(n *Node, staged *cow.Staged) error {
	if staged.FD < 0 {
		return unix.ENOENT
	}
	fd, err := unix.FcntlInt(uintptr(staged.FD), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	if n.anchor >= 0 {
		unix.Close(int(n.anchor))
	}
	n.anchor = int32(fd)
	fs.becameUpper(n, staged)
	return nil
}

// restoreTimes puts back what a change made for a copy-up did to a directory's
// times (kernel: ovl_set_timestamps of the parent).
func restoreTimes(fd int, st *Attr) {
	ts := [2]unix.Timespec{timespec(st.Atime), timespec(st.Mtime)}
	_ = layer.Utimens(fd, "", &ts)
}

func timespec(t unix.StatxTimestamp) unix.Timespec {
	return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)}
}

// completeMeta gives a metadata-only file of the upper its data.
func (fs *FS) completeMeta(c *Caller, n *Node, w need, waited time.Duration) error {
	n.mu.RLock()
	x := n.x
	if x == nil || x.dataDir == nil {
		n.mu.RUnlock()
		return nil
	}
	src := cow.Source{Dir: x.dataDir, Name: x.dataName, Path: fs.Path(n)}
	var o openFile
	o.upper = true
	fd, err := fs.openReal(n, &o)
	n.mu.RUnlock()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lfd, err := src.Dir.FD()
	if err != nil {
		return err
	}
	err = layer.Stat(lfd, src.Name, &src.Stat)
	src.Dir.Done()
	if err != nil {
		return err
	}
	err = fs.eng.CompleteMeta(fd, &src, &cow.Want{Size: w.size, Cause: w.cause, PID: pidOf(c), Asked: w.asked,
		Wait: waited, Cancel: cancelOf(c)})
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.x.dataDir = nil
	fs.altered.Add(1)
	fs.files.evict(n)
	return nil
}

// upDir makes sure that a directory exists in the upper, with its parents, for what is
// changed below it, and returns it. No lock is held.
func (fs *FS) upDir(c *Caller, n *Node) (*layer.Dir, error) {
	return fs.upDirFor(c, n, cow.CauseParent)
}

// upDirFor is upDir for another cause.
func (fs *FS) upDirFor(c *Caller, n *Node, cause cow.Cause) (*layer.Dir, error) {
	if u := n.d.upper.Load(); u != nil {
		return u, nil
	}
	if fs.upper == nil {
		return nil, errReadOnly
	}
	parent, name := fs.viewPlace(n)
	if parent == nil {
		return nil, unix.ENOENT
	}
	up, err := fs.upDir(c, parent)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if u := n.d.upper.Load(); u != nil {
		return u, nil
	}
	if p, _ := fs.viewPlace(n); p == nil { // removed meanwhile; it cannot have been renamed
		return nil, unix.ENOENT
	}
	src := cow.Source{Dir: n.dir, Name: n.real, Path: fs.Path(n)}
	lfd, err := n.dir.FD()
	if err != nil {
		return nil, err
	}
	err = layer.Stat(lfd, n.real, &src.Stat)
	origin := fs.originOf(n.dir, lfd, n.real)
	xattrs := fs.carryOver(n.dir.Tree(), lfd, n.real, &src.Stat)
	n.dir.Done()
	if err != nil {
		return nil, err
	}
	staged, err := fs.eng.Stage(&src, &cow.Want{Size: -1, Cause: cause, PID: pidOf(c), Origin: origin, Xattrs: xattrs})
	if err != nil {
		return nil, err
	}
	defer staged.Close()
	defer staged.Abort()
	fd, err := up.FD()
	if err != nil {
		return nil, err
	}
	defer up.Done()
	var before Attr
	if err := layer.Stat(fd, "", &before); err != nil {
		return nil, err
	}
	fs.markImpure(parent.d)
	if err := staged.Commit(fd, name, false); err != nil {
		return nil, err
	}
	restoreTimes(fd, &before)
	fs.altered.Add(1)
	u := up.Child(name)
	n.dir, n.real = up, name
	n.upper.Store(true)
	n.d.upper.Store(u)
	return u, nil
}

// Path returns the path of n in the view, for messages: "/" for the root, "" for a
// node without a name.
func (fs *FS) Path(n *Node) string {
	fs.nodes.mu.Lock()
	defer fs.nodes.mu.Unlock()
	if n == fs.root {
		return "/"
	}
	var elems []string
	for ; n != fs.root; n = n.parent {
		if n.parent == nil {
			return ""
		}
		elems = append(elems, n.name)
	}
	var b strings.Builder
	for i := len(elems) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(elems[i])
	}
	return b.String()
}
