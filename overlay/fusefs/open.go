package fusefs

import (
	"sync"
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
	s *session[N]

	mu    sync.Mutex // guards nodes, and refs of each; a leaf
	nodes map[uint64]*openNode
}

// openNode is a node that is open.
type openNode struct {
	refs int // opens, and openings under way

	mu      sync.Mutex // guards the rest; held while the backing file is opened
	backing int32      // id of the kernel's reference to the backing file, 0 if cached
	upper   bool       // the backing file is the upper's
	cached  bool       // opened through the page cache
	release func()     // gives the backing descriptor back to the union
}

func newOpenFiles[N Node](s *session[N]) *openFiles[N] {
	return &openFiles[N]{s: s, nodes: map[uint64]*openNode{}}
}

// install puts the handlers into the dispatch table. OPENDIR, FLUSH and ACCESS
// stay ENOSYS.
func (f *openFiles[N]) install() {
	f.s.ops[opOpen] = operation[N]{(*session[N]).openFile, true}
	f.s.ops[opCreate] = operation[N]{(*session[N]).create, true}
	f.s.ops[opRelease] = operation[N]{(*session[N]).releaseFile, false}
	if _, ok := f.s.fs.(Locker[N]); ok && f.s.opt.Mode == Shared {
		f.s.ops[opGetlk] = operation[N]{(*session[N]).getlk, true}
		f.s.ops[opSetlk] = operation[N]{(*session[N]).setlk, true}
		f.s.ops[opSetlkw] = operation[N]{(*session[N]).setlk, true}
	}
}

func (s *session[N]) openFile(r *request, n N) unix.Errno {
	in := decode[fuse.OpenIn](r)
	if in == nil {
		return unix.EIO
	}
	return s.open.opened(r, n, in.Flags, answer[fuse.OpenOut](r))
}

func (s *session[N]) create(r *request, dir N) unix.Errno {
	in := decode[fuse.CreateIn](r)
	if in == nil {
		return unix.EIO
	}
	name, _, ok := r.child(int(unsafe.Sizeof(*in)))
	if !ok {
		return unix.EINVAL
	}
	r.caller.Umask = in.Umask
	a := &r.w.attr
	n, err := s.fs.Mknod(&r.caller, dir, name, in.Mode, 0, a)
	if err != nil {
		return errno(err)
	}
	o := answer[fuse.CreateOut](r)
	r.entry = n.ID()
	s.fillEntry(&o.EntryOut, r.entry, a)
	e := s.open.opened(r, n, in.Flags, &o.OpenOut)
	if e != 0 {
		s.undo(r)
		r.entry = 0
	}
	return e
}

// opened decides how the kernel shall do I/O on n.
func (f *openFiles[N]) opened(r *request, n N, flags uint32, o *fuse.OpenOut) unix.Errno {
	id := n.ID()
	h := f.get(id)
	h.mu.Lock()
	defer h.mu.Unlock()
	write := flags&unix.O_ACCMODE != unix.O_RDONLY
	if h.backing != 0 && write && !h.upper {
		return f.handOver(id, n)
	}
	if f.s.opt.Mode == Passthrough && !h.cached && h.backing == 0 {
		if e := f.back(h, &r.caller, n, write); e != 0 {
			f.put(id)
			return e
		}
	}
	if h.backing != 0 {
		o.OpenFlags = fuse.FOPEN_PASSTHROUGH
		o.BackingID = h.backing
		return 0
	}
	h.cached = true
	if f.s.opt.Mode == Passthrough {
		o.OpenFlags = fuse.FOPEN_KEEP_CACHE
	}
	return 0
}

// handOver ends the use of n for new opens: it is open on a lower file, which all its
// opens must share, and someone wants to write. ESTALE makes the kernel look
// the name up again (LOOKUP_REVAL), where it finds the successor: same inode
// number, new node, upper file.
func (f *openFiles[N]) handOver(id uint64, n N) unix.Errno {
	f.put(id)
	x, ok := f.s.fs.(Renewer[N])
	if !ok {
		return unix.ETXTBSY
	}
	if _, err := x.Renew(n); err != nil {
		return errno(err)
	}
	return unix.ESTALE
}

// back opens the backing file and gives it to the kernel. A file the kernel does
// not take (on a stacked filesystem, say) is served through the page cache.
func (f *openFiles[N]) back(h *openNode, c *Caller, n N, write bool) unix.Errno {
	fd, upper, release, err := f.s.fs.Backing(c, n, write)
	if err != nil {
		return errno(err)
	}
	id, e := f.s.conn.backingOpen(fd)
	if e != 0 {
		release()
		f.s.opt.logOnce(&f.s.noBacking, "passthrough: the kernel refuses a file (%v); serving such files through the page cache", e)
		return 0
	}
	h.backing, h.upper, h.release = id, upper, release
	return 0
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
	f.mu.Lock()
	h := f.nodes[id]
	if h == nil {
		f.mu.Unlock()
		return
	}
	if h.refs--; h.refs > 0 {
		f.mu.Unlock()
		return
	}
	delete(f.nodes, id)
	f.mu.Unlock()
	if h.backing != 0 {
		f.s.conn.backingClose(h.backing)
		h.release()
	}
}

func (s *session[N]) releaseFile(r *request, _ N) unix.Errno {
	s.open.put(r.hdr.NodeId)
	return 0
}

func (s *session[N]) getlk(r *request, n N) unix.Errno {
	in := decode[fuse.LkIn](r)
	if in == nil {
		return unix.EIO
	}
	lk := Lock{in.Lk.Start, in.Lk.End, in.Lk.Typ, in.Lk.Pid}
	if err := s.fs.(Locker[N]).Getlk(n, in.Owner, &lk); err != nil {
		return errno(err)
	}
	answer[fuse.LkOut](r).Lk = fuse.FileLock{Start: lk.Start, End: lk.End, Typ: lk.Type, Pid: lk.PID}
	return 0
}

func (s *session[N]) setlk(r *request, n N) unix.Errno {
	in := decode[fuse.LkIn](r)
	if in == nil {
		return unix.EIO
	}
	lk := Lock{in.Lk.Start, in.Lk.End, in.Lk.Typ, in.Lk.Pid}
	wait := r.hdr.Opcode == opSetlkw
	return errno(s.fs.(Locker[N]).Setlk(n, in.Owner, &lk, in.LkFlags&fuse.LK_FLOCK != 0, wait, r.caller.Cancel))
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

func (c *conn) backingClose(id int32) {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), devBackingClose, uintptr(unsafe.Pointer(&id)))
	if e != 0 {
		c.logf("passthrough: closing backing file %d: %v", id, e)
	}
}
