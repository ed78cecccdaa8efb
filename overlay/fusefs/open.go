package fusefs

import (
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// openFiles serves OPEN, CREATE and RELEASE in the modes that answer them. Its
// state is per node, not per handle: I/O that reaches us is by node anyway, and the
// kernel wants one way of reading an inode for all its opens (fs/fuse/iomode.c):
// either all through the page cache, or all through one and the same backing
// file.
type openFiles[N Node] struct {
	s       *session[N]
	handles atomic.Uint64 // last handle given

	mu    sync.Mutex // guards nodes, refs of each, renewed and split; a leaf
	nodes map[uint64]*openNode
	// renewed are the nodes that were handed over, with their inode numbers, until the kernel forgets them: it may
	// know one by a name still, if it was handed over by a descriptor, and open it anew. split counts them by inode
	// number: the kernel has two inodes of the file, and sees a change made through one of them by asking for the other.
	renewed map[uint64]uint64
	split   map[uint64]int
	splits  atomic.Int32        // how many
	dirs    map[uint64]*openDir // by handle; guarded by mu
}

// openDir is one open of a directory that others change.
type openDir struct {
	mu sync.Mutex // held while it is read
	Listing
}

// openNode is a node that is open.
type openNode struct {
	refs int // opens, and openings under way

	mu      sync.Mutex // guards the rest
	backing int32      // id of the kernel's reference to the backing file, 0 if cached
	upper   bool       // the backing file is the upper's
	cached  bool       // opened through the page cache
	release func()     // gives the backing descriptor back to the union
}

func newOpenFiles[N Node](s *session[N]) *openFiles[N] {
	return &openFiles[N]{s: s, nodes: map[uint64]*openNode{}, renewed: map[uint64]uint64{}, split: map[uint64]int{}, dirs: map[uint64]*openDir{}}
}

// install puts the handlers into the dispatch table. What is not installed stays ENOSYS:
// ACCESS always, OPENDIR where nobody else changes a directory, FLUSH and the locks where
// the kernel keeps the locks.
func (f *openFiles[N]) install() {
	f.s.ops[opOpen] = operation[N]{(*session[N]).openFile, true}
	f.s.ops[opCreate] = operation[N]{(*session[N]).createFile, true}
	f.s.ops[opRelease] = operation[N]{(*session[N]).releaseFile, false}
	if f.s.locks != nil {
		f.s.ops[opGetlk] = operation[N]{(*session[N]).getlk, true}
		f.s.ops[opSetlk] = operation[N]{(*session[N]).setlk, true}
		f.s.ops[opSetlkw] = operation[N]{(*session[N]).setlk, true}
	}
	if f.s.locks != nil || f.s.shares != nil {
		f.s.ops[opFlush] = operation[N]{(*session[N]).flush, true}
	}
	if f.s.shares != nil || f.s.opt.Mode == Shared {
		f.s.ops[opOpendir] = operation[N]{(*session[N]).openDir, true}
		f.s.ops[opReleasedir] = operation[N]{(*session[N]).releaseDir, false}
	}
}

func (s *session[N]) openFile(r *request, n N) unix.Errno {
	in := decode[fuse.OpenIn](r)
	if in == nil {
		return unix.EIO
	}
	if e := s.mayOpen(n, in.Flags); e != 0 {
		return e
	}
	if in.Flags&unix.O_TRUNC != 0 { // ATOMIC_O_TRUNC; first, so that nothing is copied
		set := SetAttr{Mask: SetSize}
		if in.Mode&fuse.OPEN_KILL_SUIDGID != 0 {
			set.Mask |= KillPriv
		}
		if err := s.fs.Setattr(&r.caller, n, &set, &r.w.attr); err != nil {
			return errno(err)
		}
	}
	return s.open.opened(r, n, in.Flags, answer[fuse.OpenOut](r))
}

func (s *session[N]) mayOpen(n N, flags uint32) unix.Errno {
	if s.guard == nil {
		return 0
	}
	return errno(s.guard.MayOpen(n, flags))
}

// createFile is create in the modes that answer OPEN.
func (s *session[N]) createFile(r *request, dir N) unix.Errno {
	n, flags, o, e := s.makeFile(r, dir)
	if e != 0 {
		return e
	}
	if e = s.open.opened(r, n, flags, o); e != 0 {
		s.undo(r)
		r.entry = 0
	}
	return e
}

// opened decides how the kernel shall do I/O on n.
func (f *openFiles[N]) opened(r *request, n N, flags uint32, o *fuse.OpenOut) unix.Errno {
	keep, direct := true, f.s.opt.Mode == Passthrough
	if x := f.s.shares; x != nil {
		pass, err := x.OpenFile(&r.caller, n, flags)
		if err != nil {
			return errno(err)
		}
		_, keep = x.Keep(n)
		direct = direct || pass
	}
	o.Fh = f.handles.Add(1)
	direct = direct && f.s.neg.passthrough && (f.s.guard == nil || !f.s.guard.Guarded(n))
	e := f.how(r, n, flags, keep, direct, o)
	if e != 0 && f.s.shares != nil {
		f.s.shares.CloseFile(n, flags)
	}
	return e
}

func (f *openFiles[N]) how(r *request, n N, flags uint32, keep, direct bool, o *fuse.OpenOut) unix.Errno {
	id := n.ID()
	h := f.get(id)
	write := flags&unix.O_ACCMODE != unix.O_RDONLY
	if x, ok := f.s.fs.(Aliaser[N]); ok && direct && !write && x.Aliased(n) {
		direct = false // through the page cache, as in the other modes
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if direct && !h.cached && h.backing == 0 {
		// Not with the lock: with write this may copy the whole file, and its readers
		// go on meanwhile.
		h.mu.Unlock()
		lower := write && !f.outdated(n)
		fd, upper, release, err := f.s.fs.Backing(&r.caller, n, write)
		if lower && f.outdated(n) {
			// Copied up: without an index a file with other names has a number of its own now.
			_ = f.s.conn.invalInode(id, -1, 0)
		}
		h.mu.Lock()
		switch {
		case !write && errors.Is(err, unix.ENOSPC):
			// No room to complete an unfinished file: it can be read as in the other modes.
		case err != nil:
			f.unback(f.leave(id)) // h.mu is held
			return errno(err)
		case h.cached || h.backing != 0: // somebody was faster
			release()
		default:
			f.back(h, fd, upper, release)
		}
	}
	// With no flag at all it is no open(2): the kernel itself opens the node for an ioctl that it makes of a
	// call of its own (fuse_priv_ioctl_prepare), reads nothing, and would not look the name up again.
	if h.backing != 0 && !h.upper && (write || flags != 0 && f.outdated(n)) {
		return f.handOver(r, h, id, n)
	}
	if h.backing != 0 {
		o.OpenFlags = fuse.FOPEN_PASSTHROUGH
		o.BackingID = h.backing
		return 0
	}
	h.cached = true
	switch {
	case !keep:
		// What others change must not be in the page cache. (A shared mapping is all the
		// same, see docs/grafts.md.)
		o.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
	case f.s.opt.Mode != Shared:
		o.OpenFlags = fuse.FOPEN_KEEP_CACHE
	}
	return 0
}

// outdated says that n was copied up while its lower file is open, by a truncation, say.
func (f *openFiles[N]) outdated(n N) bool {
	x, ok := f.s.fs.(Outdater[N])
	return ok && x.Outdated(n)
}

// handOver ends the use of n for new opens: it is open on a lower file, which all its
// opens must share, and someone wants to write. ESTALE makes the kernel look
// the name up again (LOOKUP_REVAL), where it finds the successor: same inode
// number, new node, upper file.
func (f *openFiles[N]) handOver(r *request, h *openNode, id uint64, n N) unix.Errno {
	f.unback(f.leave(id)) // h.mu is held
	x, ok := f.s.fs.(Renewer[N])
	if !ok {
		return unix.ETXTBSY
	}
	// Not with the lock: this may copy the whole file, and its readers go on meanwhile.
	h.mu.Unlock()
	defer h.mu.Lock()
	return f.renew(r, x, n)
}

func (f *openFiles[N]) renew(r *request, x Renewer[N], n N) unix.Errno {
	if err := f.s.fs.Getattr(n, &r.w.attr); err != nil {
		return errno(err)
	}
	f.parts(n.ID(), r.w.attr.Ino)
	if _, err := x.Renew(&r.caller, n); err != nil {
		return errno(err)
	}
	// Without an index a file with other names has a number of its own now.
	if err := f.s.fs.Getattr(n, &r.w.attr); err != nil {
		return errno(err)
	}
	f.parts(n.ID(), r.w.attr.Ino)
	_ = f.s.conn.invalInode(n.ID(), -1, 0) // only its attributes, for which the kernel takes no lock
	return unix.ESTALE
}

// parts notes, until the node is forgotten, that there is to be another with its inode number.
func (f *openFiles[N]) parts(id, ino uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.renewed[id] == ino {
		return
	}
	f.joins(id)
	f.renewed[id] = ino
	f.split[ino]++
	f.splits.Add(1)
}

// forgot ends what parts began, if the node is no more.
func (f *openFiles[N]) forgot(id uint64) {
	var none N
	if f == nil || f.splits.Load() == 0 || f.s.fs.Node(id) != none {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.joins(id)
}

// joins ends what parts began. f.mu is held.
func (f *openFiles[N]) joins(id uint64) {
	ino := f.renewed[id]
	if ino == 0 {
		return
	}
	delete(f.renewed, id)
	f.splits.Add(-1)
	if f.split[ino]--; f.split[ino] == 0 {
		delete(f.split, ino)
	}
}

// twofold says that the kernel has two inodes with this number, and must keep the attributes of neither.
func (f *openFiles[N]) twofold(ino uint64) bool {
	if f == nil || f.splits.Load() == 0 {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.split[ino] > 0
}

// beforeLink hands over a node that is open on a lower file and is to have a further name: once it is handed
// over by one name, the kernel would know it by the others still, and show there what was before. ESTALE as in
// handOver. When the kernel found the node by a descriptor it comes back with the same: then renewed is true,
// and afterLink is for the answer.
func (f *openFiles[N]) beforeLink(r *request, n N) (renewed bool, e unix.Errno) {
	f.mu.Lock()
	h := f.nodes[n.ID()]
	renewed = f.renewed[n.ID()] != 0
	f.mu.Unlock()
	x, ok := f.s.fs.(Renewer[N])
	if h == nil || !ok || renewed {
		return renewed, 0
	}
	h.mu.Lock()
	lower := h.backing != 0 && !h.upper
	h.mu.Unlock()
	if !lower {
		return false, 0
	}
	return false, f.renew(r, x, n)
}

// afterLink answers with a new name of a node that was handed over. Who looks it up finds the successor, too.
func (f *openFiles[N]) afterLink(r *request, n N, a *Attr) unix.Errno {
	if _, err := f.s.fs.(Renewer[N]).Renew(&r.caller, n); err != nil {
		return errno(err)
	}
	o := answer[fuse.EntryOut](r)
	r.entry = n.ID()
	f.s.fillEntry(o, n, a)
	o.EntryValid, o.EntryValidNsec = 0, 0
	return 0
}

// back gives the backing file fd to the kernel. A file the kernel does not take (on a
// stacked filesystem, say) is served through the page cache. h.mu is held.
func (f *openFiles[N]) back(h *openNode, fd int, upper bool, release func()) {
	id, e := f.s.conn.backingOpen(fd)
	if e != 0 {
		release()
		why := e.Error()
		if e == unix.ELOOP { // "too many levels", not of links
			why = "its filesystem is a stacked one"
		}
		f.s.opt.logOnce(&f.s.noBacking, "passthrough: the kernel refuses a file (%s); such files are served without it", why)
		return
	}
	h.backing, h.upper, h.release = id, upper, release
}

// get takes a reference to the state of a node, new or old.
func (f *openFiles[N]) get(id uint64) *openNode {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.nodes[id]
	if h == nil {
		h = &openNode{}
		f.nodes[id] = h
	}
	h.refs++
	return h
}

// put gives it back. The last one closes the backing file.
func (f *openFiles[N]) put(id uint64) {
	if h := f.leave(id); h != nil {
		h.mu.Lock()
		f.unback(h)
		h.mu.Unlock()
	}
}

// leave takes one reference away, and returns the state if that was the last.
func (f *openFiles[N]) leave(id uint64) *openNode {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.nodes[id]
	if h == nil {
		return nil
	}
	if h.refs--; h.refs > 0 {
		return nil
	}
	delete(f.nodes, id)
	return h
}

// unback closes the backing file. h.mu is held, and nobody else has h.
func (f *openFiles[N]) unback(h *openNode) {
	if h != nil && h.backing != 0 {
		f.s.conn.backingClose(h.backing)
		h.release()
		h.backing = 0
	}
}

func (s *session[N]) releaseFile(r *request, _ N) unix.Errno {
	in := decode[fuse.ReleaseIn](r)
	if s.locks != nil && in != nil {
		s.locks.Released(r.hdr.NodeId, in.Fh)
	}
	s.open.put(r.hdr.NodeId)
	if s.shares != nil && in != nil {
		var none N
		if n := s.fs.Node(r.hdr.NodeId); n != none {
			s.shares.CloseFile(n, in.Flags)
		}
	}
	return 0
}

// flush is asked at every close(2): the moment when the locks of a process on the file
// end, and the last one at which a write can fail.
func (s *session[N]) flush(r *request, n N) unix.Errno {
	in := decode[fuse.FlushIn](r)
	if in == nil {
		return unix.EIO
	}
	var err error
	if s.shares != nil {
		err = s.shares.FlushFile(n)
	}
	if s.locks != nil {
		s.locks.Unlock(n, in.LockOwner)
	}
	return errno(err)
}

func (s *session[N]) openDir(r *request, n N) unix.Errno {
	var l Listing
	if s.shares != nil {
		var err error
		if l, err = s.shares.OpenDir(n); err != nil {
			return errno(err)
		}
	}
	o := answer[fuse.OpenOut](r)
	if l == nil {
		o.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_CACHE_DIR
		if s.opt.Mode == Shared {
			o.OpenFlags = 0
		}
		return 0
	}
	f := s.open
	o.Fh = f.handles.Add(1)
	f.mu.Lock()
	f.dirs[o.Fh] = &openDir{Listing: l}
	f.mu.Unlock()
	return 0
}

func (s *session[N]) releaseDir(r *request, _ N) unix.Errno {
	in := decode[fuse.ReleaseIn](r)
	if in == nil || in.Fh == 0 {
		return 0
	}
	f := s.open
	f.mu.Lock()
	l := f.dirs[in.Fh]
	delete(f.dirs, in.Fh)
	f.mu.Unlock()
	if l != nil {
		l.mu.Lock() // the kernel sends it after the last reading
		l.Close()
		l.mu.Unlock()
	}
	return 0
}

// listing returns the open directory of a handle, nil if the union's own listing is meant.
func (s *session[N]) listing(handle uint64) *openDir {
	if handle == 0 || s.shares == nil {
		return nil
	}
	s.open.mu.Lock()
	defer s.open.mu.Unlock()
	return s.open.dirs[handle]
}

const (
	devBackingOpen  = 0x4010e501 // FUSE_DEV_IOC_BACKING_OPEN
	devBackingClose = 0x4004e502 // FUSE_DEV_IOC_BACKING_CLOSE
)

// backingOpen gives the kernel a reference to fd's file.
func (c *conn) backingOpen(fd int) (int32, unix.Errno) {
	m := fuse.BackingMap{Fd: int32(fd)}
	id, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), devBackingOpen, uintptr(unsafe.Pointer(&m)))
	return int32(id), e
}

// mayBack says whether the kernel would take files from this process: it looks at who asks before it looks at the file.
func (c *conn) mayBack() bool {
	_, e := c.backingOpen(-1)
	return e != unix.EPERM
}

func (c *conn) backingClose(id int32) {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), devBackingClose, uintptr(unsafe.Pointer(&id)))
	if e != 0 {
		c.logf("passthrough: closing backing file %d: %v", id, e)
	}
}
