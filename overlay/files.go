package overlay

import (
	"container/list"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
)

// openFile is the descriptor through which the data of one node is read and
// written. Requests carry no handles, so that the union opens a file when its data is
// first asked for and keeps it while there is room.
type openFile struct {
	fd      int
	write   bool
	upper   bool
	refused error        // why an upper file is not open for writing
	partial *cow.Partial // the data comes through it; fd is its upper file

	refs atomic.Int32 // users, and one for being cached
	node *Node
	elem *list.Element // guarded by files.mu
}

// files is the cache of open files, least recently used last. Its lock is a leaf.
type files struct {
	fs    *FS
	limit int

	mu  sync.Mutex
	lru *list.List // of *openFile
}

func (c *files) init(fs *FS) {
	c.fs, c.lru = fs, list.New()
	c.limit = 256
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) == nil {
		// An unfinished file takes three descriptors, and directories have a quarter of all.
		c.limit = int(min(max(r.Cur/8, 256), max(r.Cur/6, 1), 4096))
	}
	go growTable(c.limit)
}

// growTable makes room for n descriptors in the process's table. Each time the table is full the
// kernel doubles it, and whoever needs a descriptor waits until all processors have noticed
// (expand_fdtable, synchronize_rcu): ten milliseconds, seen as the slowest opens of a busy mount.
func growTable(n int) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, n); err == nil {
		unix.Close(high)
	}
}

func (o *openFile) done() {
	if o.refs.Add(-1) == 0 {
		if o.partial != nil {
			o.partial.Close()
		}
		unix.Close(o.fd)
	}
}

// hold takes a reference unless the file is on its way out.
func (o *openFile) hold() bool {
	for {
		r := o.refs.Load()
		if r == 0 {
			return false
		}
		if o.refs.CompareAndSwap(r, r+1) {
			return true
		}
	}
}

// reader returns an open file for the data of n. The caller calls done.
func (fs *FS) reader(n *Node) (*openFile, error) {
	if o := n.file.Load(); o != nil && o.hold() {
		return o, nil
	}
	return fs.openNode(n, false)
}

// writer returns the open upper file of n, which has been copied up.
func (fs *FS) writer(n *Node) (*openFile, error) {
	if o := n.file.Load(); o != nil && o.write && o.hold() {
		return o, nil
	}
	return fs.openNode(n, true)
}

// openNode opens the file of n and caches it. Not with n.mu held.
func (fs *FS) openNode(n *Node, write bool) (*openFile, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return fs.openLocked(n, write)
}

func (fs *FS) openLocked(n *Node, write bool) (*openFile, error) {
	if n.typ != unix.S_IFREG {
		if n.typ == unix.S_IFDIR {
			return nil, unix.EISDIR
		}
		return nil, unix.EINVAL
	}
	o := &openFile{node: n, upper: n.upper.Load()}
	o.refs.Store(2)
	if write && !o.upper {
		return nil, unix.EROFS
	}
	fd, err := fs.openReal(n, o)
	if err != nil {
		return nil, err
	}
	o.fd = fd
	if write && !o.write {
		unix.Close(fd)
		return nil, o.refused
	}
	if o.upper && fs.eng != nil && n.x != nil && n.x.dataDir != nil {
		// Metadata only: reads come from the lower.
		data, err := fs.openLower(n.x.dataDir, n.x.dataName)
		unix.Close(fd)
		if err != nil {
			return nil, err
		}
		if write {
			unix.Close(data)
			return nil, unix.EROFS
		}
		o.fd, o.write, o.upper = data, false, false
	} else if o.upper && (fs.unsettled() || n.anchor >= 0 && fs.eng != nil) {
		// Without a name it may be unfinished for ever.
		if err := fs.openPartial(n, o); err != nil {
			unix.Close(fd)
			return nil, err
		}
	}
	fs.files.insert(n, o)
	return o, nil
}

// openPartial looks whether the upper file just opened is unfinished.
func (fs *FS) openPartial(n *Node, o *openFile) error {
	rec, err := fs.eng.ReadRecord(o.fd, "")
	if err != nil || rec == nil {
		return err
	}
	o.partial, err = fs.eng.OpenPartial(o.fd, fs.Path(n))
	return err
}

// openReal opens the object itself: for reading and writing in the upper, else for
// reading.
func (fs *FS) openReal(n *Node, o *openFile) (int, error) {
	p, err := n.place()
	if err != nil {
		return -1, err
	}
	defer p.done()
	if !o.upper {
		x := n.x
		if x != nil && x.dataDir != nil {
			return fs.openLower(x.dataDir, x.dataName)
		}
		return fs.openSettled(n.dir.Tree(), p.fd, p.name)
	}
	o.write = true
	fd, err := layer.Open(p.fd, p.name, unix.O_RDWR|unix.O_NONBLOCK, 0)
	switch err {
	case unix.EACCES:
		// A plain user's daemon, and a file whose mode keeps its owner out: who had it
		// open before the mode changed goes on, and who may open it now was decided.
		return fs.openAnyway(p)
	case unix.EPERM, unix.ETXTBSY, unix.EROFS:
		// Append-only or immutable by a flag of its own, from a kernel before 5.14, or running as a
		// program in the host: read it.
		if fd, e := layer.Open(p.fd, p.name, unix.O_RDWR|unix.O_APPEND|unix.O_NONBLOCK, 0); e == nil {
			return fd, nil
		}
		o.write, o.refused = false, err
		return layer.Open(p.fd, p.name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	return fd, err
}

// openAnyway opens a file of this process' own whose mode does not let it.
func (fs *FS) openAnyway(p pin) (int, error) {
	var st Attr
	if err := layer.Stat(p.fd, p.name, &st); err != nil {
		return -1, err
	}
	if st.Uid != fs.self.uid {
		return -1, unix.EACCES
	}
	mode := uint32(st.Mode) & 0o7777
	if err := layer.Chmod(p.fd, p.name, mode|0o600); err != nil {
		return -1, unix.EACCES
	}
	fd, err := layer.Open(p.fd, p.name, unix.O_RDWR|unix.O_NONBLOCK, 0)
	if back := layer.Chmod(p.fd, p.name, mode); back != nil && err == nil {
		unix.Close(fd)
		return -1, back
	}
	return fd, err
}

// insert makes o the cached file of n and closes what is too much. n.mu is held.
func (c *files) insert(n *Node, o *openFile) {
	if c.fs.cfg.NoAtime {
		layer.Quiet(o.fd)
	}
	c.mu.Lock()
	old := n.file.Swap(o)
	if old != nil && old.elem != nil {
		c.lru.Remove(old.elem)
		old.elem = nil
	}
	o.elem = c.lru.PushFront(o)
	var out []*openFile
	for c.lru.Len() > c.limit {
		e := c.lru.Back()
		v := e.Value.(*openFile)
		c.lru.Remove(e)
		v.elem = nil
		v.node.file.CompareAndSwap(v, nil)
		out = append(out, v)
	}
	c.mu.Unlock()
	if old != nil {
		old.done()
	}
	for _, v := range out {
		v.done()
	}
}

// evict closes the cached file of n, once its users are done.
func (c *files) evict(n *Node) {
	if n.file.Load() == nil {
		return
	}
	c.mu.Lock()
	o := n.file.Swap(nil)
	if o != nil && o.elem != nil {
		c.lru.Remove(o.elem)
		o.elem = nil
	}
	c.mu.Unlock()
	if o != nil {
		o.done()
	}
}

func (c *files) closeAll() {
	c.mu.Lock()
	var all []*openFile
	for e := c.lru.Front(); e != nil; e = e.Next() {
		o := e.Value.(*openFile)
		o.elem = nil
		o.node.file.CompareAndSwap(o, nil)
		all = append(all, o)
	}
	c.lru.Init()
	c.mu.Unlock()
	for _, o := range all {
		o.done()
	}
}

// give caches a descriptor that a copy-up or a creation has opened anyway, with partial if it is of an
// unfinished file. n.mu is held for writing, or n is new.
func (fs *FS) give(n *Node, fd int, partial *cow.Partial) {
	if fd < 0 {
		return
	}
	o := &openFile{fd: fd, node: n, upper: true, write: true, partial: partial}
	o.refs.Store(1)
	fs.files.insert(n, o)
}
