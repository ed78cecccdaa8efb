package graft

import (
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/overlay"
	"github.com/plyfs/plyfs/overlay/fusefs"
)

// Locks are kept by the host, on the file itself, so that everybody who shares a source excludes
// everybody else. A POSIX lock belongs to a process, and all callers are one process
// here; so each owner has an open file description of its own, with locks of that (F_OFD_SETLK,
// flock). Files of the overlay, which nobody else sees, have a stand-in in memory for it; so have those of a source
// that cannot be opened once more.

// lockTable has the files that have locks.
type lockTable struct {
	some atomic.Bool // there was a lock once

	mu    sync.Mutex
	files map[uint64]*fileLocks // by node
}

// fileLocks are the locks of one file.
type fileLocks struct {
	refs int // users, guarded by lockTable.mu

	mu      sync.Mutex // guards the rest
	owners  map[lockOwner]*owned
	standIn *desc         // nil for live files that can be opened
	changed chan struct{} // closed when a lock went
}

type lockOwner struct {
	id    uint64
	flock bool
}

// owned is what one owner has locked.
type owned struct {
	fd      int
	pid     uint32
	handles map[uint64]bool // open files it was done through
	spans   []fusefs.Lock   // to say who is in the way
}

func (t *lockTable) init() { t.files = map[uint64]*fileLocks{} }

// get returns the locks of a node, made if there are none and create says so. The caller calls put.
func (t *lockTable) get(id uint64, create bool) *fileLocks {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[id]
	if f == nil {
		if !create {
			return nil
		}
		f = &fileLocks{owners: map[lockOwner]*owned{}, changed: make(chan struct{})}
		t.files[id] = f
		t.some.Store(true)
	}
	f.refs++
	return f
}

func (t *lockTable) put(id uint64, f *fileLocks) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.refs--
	if f.refs == 0 && len(f.owners) == 0 {
		delete(t.files, id)
		f.standIn.done()
		f.standIn = nil
	}
}

func (t *lockTable) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, f := range t.files {
		for k := range f.owners {
			f.drop(k)
		}
		f.standIn.done()
		delete(t.files, id)
	}
}

// wake tells those who wait that something went. f.mu is held.
func (f *fileLocks) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// drop takes everything from an owner. f.mu is held, or f is nobody else's.
func (f *fileLocks) drop(k lockOwner) {
	o := f.owners[k]
	if o == nil {
		return
	}
	delete(f.owners, k)
	// In words, not only by closing: a filesystem that sends locks to a server does not see
	// the close of such a description.
	if k.flock {
		_ = unix.Flock(o.fd, unix.LOCK_UN)
	} else {
		_ = unix.FcntlFlock(uintptr(o.fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
	}
	unix.Close(o.fd)
}

// giveUp forgets an owner that has nothing but a failed attempt.
func (f *fileLocks) giveUp(k lockOwner) {
	f.mu.Lock()
	if o := f.owners[k]; o != nil && len(o.spans) == 0 {
		f.drop(k)
	}
	f.mu.Unlock()
}

// openLock opens the file of n for one owner. f.mu is held.
func (u *Union) openLock(c *overlay.Caller, n Node, f *fileLocks, flock bool) (int, error) {
	if n.g == nil {
		return f.openStandIn()
	}
	fd := -1
	open := func(flags int) error {
		return u.at(n.g, func(own int) error {
			return u.may(c, n.g, func() (err error) {
				fd, err = layer.Open(own, "", flags|unix.O_NONBLOCK, 0)
				return err
			})
		})
	}
	var err error = unix.EROFS
	if !n.g.src.spec.ReadOnly {
		if err = open(unix.O_RDWR); err == nil || isGone(err) {
			return fd, err
		}
	}
	// For reading it is enough, unless the file is open for writing by somebody, though its mode lets nobody do that.
	if flock || err != unix.EACCES || !n.g.written() {
		err = open(unix.O_RDONLY)
	}
	if err != unix.EACCES {
		return fd, err
	}
	s := n.g.src
	if _, said := s.said.LoadOrStore("inner locks", true); !said {
		s.u.logf("%s %s at %s: locks of files whose mode does not let plyfs open them exclude nobody outside of this mount", s.spec.Kind, s.path, s.spec.Target)
	}
	return f.openStandIn()
}

// written says whether g is open for writing.
func (g *inode) written() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.writers > 0
}

// openStandIn opens what stands for a file that is not there to be locked. f.mu is held.
func (f *fileLocks) openStandIn() (int, error) {
	if f.standIn == nil {
		fd, err := unix.MemfdCreate("plyfs-locks", unix.MFD_CLOEXEC)
		if err != nil {
			return -1, err
		}
		f.standIn = newDesc(fd)
	}
	return layer.Open(f.standIn.fd, "", unix.O_RDWR, 0)
}

// Setlk implements fusefs.Locker.
func (u *Union) Setlk(c *overlay.Caller, n Node, handle, owner uint64, lk *fusefs.Lock, flock, wait bool, cancel <-chan struct{}) error {
	k := lockOwner{owner, flock}
	f := u.locks.get(n.ID(), lk.Type != unix.F_UNLCK)
	if f == nil {
		return nil
	}
	defer u.locks.put(n.ID(), f)
	for pause := 250 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		f.mu.Lock()
		changed := f.changed
		err := u.tryLock(c, n, f, k, handle, lk)
		f.mu.Unlock()
		switch {
		case err == nil:
			return nil
		case err != unix.EAGAIN || !wait:
			f.giveUp(k)
			if n.g != nil {
				n.g.src.lacks("locks", err)
			}
			return err
		}
		// Somebody of this mount lets us know; of others we have to ask.
		t := time.NewTimer(pause)
		select {
		case <-changed:
		case <-t.C:
		case <-cancel:
			t.Stop()
			f.giveUp(k)
			return unix.EINTR
		}
		t.Stop()
	}
}

// tryLock sets or removes one lock without waiting. f.mu is held.
func (u *Union) tryLock(c *overlay.Caller, n Node, f *fileLocks, k lockOwner, handle uint64, lk *fusefs.Lock) error {
	o := f.owners[k]
	if o == nil {
		if lk.Type == unix.F_UNLCK {
			return nil
		}
		fd, err := u.openLock(c, n, f, k.flock)
		if err != nil {
			return err
		}
		o = &owned{fd: fd, handles: map[uint64]bool{}}
		f.owners[k] = o
	}
	var err error
	if k.flock {
		how := map[uint32]int{unix.F_RDLCK: unix.LOCK_SH, unix.F_WRLCK: unix.LOCK_EX, unix.F_UNLCK: unix.LOCK_UN}[lk.Type]
		err = retry(func() error { return unix.Flock(o.fd, how|unix.LOCK_NB) })
	} else {
		arg := toFlock(lk)
		err = retry(func() error { return unix.FcntlFlock(uintptr(o.fd), unix.F_OFD_SETLK, &arg) })
	}
	switch {
	case err == unix.EACCES: // what POSIX allows in its place
		return unix.EAGAIN
	case err != nil:
		return err
	}
	o.note(lk)
	if lk.Type == unix.F_UNLCK {
		if len(o.spans) == 0 {
			f.drop(k)
		}
		f.wake()
		return nil
	}
	o.handles[handle] = true
	o.pid = lk.PID
	return nil
}

// note keeps account of what the owner has locked: what lk covers is replaced by it.
func (o *owned) note(lk *fusefs.Lock) {
	var out []fusefs.Lock
	for _, s := range o.spans {
		if s.End < lk.Start || s.Start > lk.End {
			out = append(out, s)
			continue
		}
		if s.Start < lk.Start {
			out = append(out, fusefs.Lock{Start: s.Start, End: lk.Start - 1, Type: s.Type})
		}
		if s.End > lk.End {
			out = append(out, fusefs.Lock{Start: lk.End + 1, End: s.End, Type: s.Type})
		}
	}
	if lk.Type != unix.F_UNLCK {
		out = append(out, fusefs.Lock{Start: lk.Start, End: lk.End, Type: lk.Type})
	}
	o.spans = out
}

// toFlock translates to the struct of fcntl(2); an end at the largest offset is "to the end".
func toFlock(lk *fusefs.Lock) unix.Flock_t {
	f := unix.Flock_t{Type: int16(lk.Type), Whence: io.SeekStart, Start: int64(lk.Start)}
	if lk.End < math.MaxInt64 {
		f.Len = int64(lk.End) - f.Start + 1
	}
	return f
}

// Getlk implements fusefs.Locker.
func (u *Union) Getlk(c *overlay.Caller, n Node, owner uint64, lk *fusefs.Lock) error {
	f := u.locks.get(n.ID(), true)
	defer u.locks.put(n.ID(), f)
	f.mu.Lock()
	defer f.mu.Unlock()
	k := lockOwner{owner, false}
	fd := -1
	if o := f.owners[k]; o != nil {
		fd = o.fd
	} else {
		own, err := u.openLock(c, n, f, false)
		if err != nil {
			return err
		}
		defer unix.Close(own)
		fd = own
	}
	arg := toFlock(lk)
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &arg); err != nil {
		return err
	}
	lk.Type = uint32(arg.Type)
	if lk.Type == unix.F_UNLCK {
		return nil
	}
	lk.Start, lk.End, lk.PID = uint64(arg.Start), math.MaxInt64, 0
	if arg.Len > 0 {
		lk.End = uint64(arg.Start+arg.Len) - 1
	}
	if arg.Pid > 0 {
		lk.PID = uint32(arg.Pid) // a process of the host
		return nil
	}
	for other, o := range f.owners {
		if other == k || other.flock {
			continue
		}
		for _, s := range o.spans {
			if s.Start <= lk.End && s.End >= lk.Start {
				lk.PID = o.pid
				return nil
			}
		}
	}
	return nil
}

// Unlock implements fusefs.Locker.
func (u *Union) Unlock(n Node, owner uint64) {
	if !u.locks.some.Load() {
		return
	}
	id := n.ID()
	f := u.locks.get(id, false)
	if f == nil {
		return
	}
	f.mu.Lock()
	if k := (lockOwner{owner, false}); f.owners[k] != nil {
		f.drop(k)
		f.wake()
	}
	f.mu.Unlock()
	u.locks.put(id, f)
}

// Released implements fusefs.Locker.
func (u *Union) Released(node, handle uint64) {
	if !u.locks.some.Load() {
		return
	}
	f := u.locks.get(node, false)
	if f == nil {
		return
	}
	f.mu.Lock()
	for k, o := range f.owners {
		if o.handles[handle] {
			if delete(o.handles, handle); len(o.handles) == 0 {
				f.drop(k)
				f.wake()
			}
		}
	}
	f.mu.Unlock()
	u.locks.put(node, f)
}
