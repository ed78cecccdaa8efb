package fusefs

import (
	"errors"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

// handler serves one request and returns its errno, or 0 with the answer in r.
type handler[N Node] func(s *session[N], r *request, n N) unix.Errno

// operation is a row of the dispatch table.
type operation[N Node] struct {
	call handler[N]
	node bool // the header's node id must be known
}

// session is the protocol side of one mount: a union and how to show it. It has no
// state of its own but counters, hints and open files.
type session[N Node] struct {
	fs   Union[N]
	opt  *Options
	neg  negotiated
	ops  [opMax]operation[N]
	stat counters

	entryValid, attrValid, negValid validity
	listings                        hints
	stale                           staleDirs
	memory                          memory
	open                            *openFiles[N] // nil in cached mode
	shares                          Sharer[N]     // nil: nobody else changes anything
	locks                           Locker[N]     // nil: the kernel keeps them
	guard                           Guard[N]      // nil: no such files
	noBacking                       sync.Once
	conn                            *conn
	dev                             uint64 // of the mount; 0 if not known
	// generation is of all nodes but the root: their ids are not given twice, but by the next mount, which a
	// handle (name_to_handle_at(2)) of this one must not name a file of.
	generation uint64
}

func newSession[N Node](fs Union[N], opt *Options) *session[N] {
	s := &session[N]{fs: fs, opt: opt, generation: 1 + rand.Uint64N(math.MaxInt32)}
	s.memory.release = debug.FreeOSMemory
	s.entryValid = validFor(opt.EntryTimeout)
	s.attrValid = validFor(opt.AttrTimeout)
	s.negValid = validFor(opt.NegativeTimeout)
	s.ops = [opMax]operation[N]{
		opLookup:          {(*session[N]).lookup, true},
		opForget:          {(*session[N]).forget, false},
		opBatchForget:     {(*session[N]).batchForget, false},
		opGetattr:         {(*session[N]).getattr, true},
		opSetattr:         {(*session[N]).setattr, true},
		opStatx:           {(*session[N]).statx, true},
		opReadlink:        {(*session[N]).readlink, true},
		opSymlink:         {(*session[N]).symlink, true},
		opMknod:           {(*session[N]).mknod, true},
		opMkdir:           {(*session[N]).mkdir, true},
		opUnlink:          {(*session[N]).unlink, true},
		opRmdir:           {(*session[N]).rmdir, true},
		opRename:          {(*session[N]).rename, true},
		opRename2:         {(*session[N]).rename2, true},
		opLink:            {(*session[N]).link, true},
		opCreate:          {(*session[N]).create, true},
		opTmpfile:         {(*session[N]).tmpfile, true},
		opRead:            {(*session[N]).read, true},
		opWrite:           {(*session[N]).write, true},
		opFsync:           {(*session[N]).fsync, true},
		opFsyncdir:        {(*session[N]).fsyncdir, true},
		opFallocate:       {(*session[N]).fallocate, true},
		opLseek:           {(*session[N]).lseek, true},
		opCopyFileRange:   {(*session[N]).copyRange, true},
		opCopyFileRange64: {(*session[N]).copyRange64, true},
		opStatfs:          {(*session[N]).statfs, true},
		opSyncfs:          {(*session[N]).syncfs, false},
		opReaddir:         {(*session[N]).readdir, true},
		opReaddirplus:     {(*session[N]).readdirplus, true},
		opGetxattr:        {(*session[N]).getxattr, true},
		opListxattr:       {(*session[N]).listxattr, true},
		opSetxattr:        {(*session[N]).setxattr, true},
		opRemovexattr:     {(*session[N]).removexattr, true},
		opIoctl:           {(*session[N]).ioctl, true},
		opInterrupt:       {(*session[N]).interrupt, false},
		opDestroy:         {(*session[N]).destroy, false},
		// Answered ENOSYS below, once: OPEN, OPENDIR, FLUSH, ACCESS, BMAP,
		// POLL and the locks. In cached mode the kernel then acts alone; in the
		// others openFiles replaces those it answers.
	}
	s.guard, _ = fs.(Guard[N])
	s.shares, _ = fs.(Sharer[N])
	if s.shares != nil || opt.Mode == Shared {
		s.locks, _ = fs.(Locker[N])
	}
	opt.shares, opt.locks = s.shares != nil, s.locks != nil
	if opt.Mode != Cached || s.shares != nil {
		opt.Writeback = false // the kernel cannot have both
		s.open = newOpenFiles(s)
		s.open.install()
	}
	return s
}

// serve runs the handler of r and returns the errno to answer with. A panic
// costs the caller EIO and leaves its stack in the log; the mount lives on.
func (s *session[N]) serve(r *request) (e unix.Errno) {
	op := r.hdr.Opcode
	if op >= opMax {
		s.stat.unknown.Add(1)
		return unix.ENOSYS
	}
	s.stat.requests[op].Add(1)
	o := &s.ops[op]
	if o.call == nil {
		return unix.ENOSYS
	}
	var n, none N
	if o.node {
		if n = s.fs.Node(r.hdr.NodeId); n == none {
			return unix.ESTALE
		}
	}
	defer func() {
		if p := recover(); p != nil {
			s.stat.panics.Add(1)
			s.opt.logf("%s of node %d: %v\n%s", opNames[op], r.hdr.NodeId, p, debug.Stack())
			r.silent = op == opForget || op == opBatchForget
			e = unix.EIO
		}
	}()
	return o.call(s, r, n)
}

// undo takes back the reference an answer carried that the kernel did not take.
func (s *session[N]) undo(r *request) {
	if r.entry != 0 {
		s.fs.Forget(r.entry, 1)
	}
}

// errno is the number the kernel gets for err. ENOSYS never comes from a union:
// the kernel would take it as "never ask again".
func errno(err error) unix.Errno {
	if err == nil {
		return 0
	}
	e, ok := err.(unix.Errno)
	if !ok && !errors.As(err, &e) {
		return unix.EIO
	}
	if e == unix.ENOSYS {
		return unix.EOPNOTSUPP
	}
	return e
}
