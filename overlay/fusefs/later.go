package fusefs

import (
	"runtime/debug"
	"sync"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// lateAnswers are requests whose callers wait for something that may take for ever (a
// lock). They hold no worker: each has a goroutine, and an entry here by which an
// INTERRUPT finds it.
type lateAnswers struct {
	waiting map[uint64]chan struct{} // by unique number; closed by INTERRUPT and at the end
	ended   bool
	wg      sync.WaitGroup
}

// later answers r, without a payload, with what f returns, some time after the handler
// returned. f must return soon after cancel is closed.
func (c *conn) later(r *request, f func(cancel <-chan struct{}) unix.Errno) unix.Errno {
	unique, cancel := r.hdr.Unique, make(chan struct{})
	c.mu.Lock()
	l := &c.late
	if l.ended {
		c.mu.Unlock()
		return unix.EINTR
	}
	if l.waiting == nil {
		l.waiting = map[uint64]chan struct{}{}
	}
	l.waiting[unique] = cancel
	l.wg.Add(1)
	c.mu.Unlock()
	select {
	case <-r.caller.Cancel: // interrupted before it was entered
		c.mu.Lock()
		l.interrupt(unique)
		c.mu.Unlock()
	default:
	}
	r.silent = true
	go func() {
		defer l.wg.Done()
		e := c.guarded(func() unix.Errno { return f(cancel) })
		c.mu.Lock()
		delete(l.waiting, unique)
		c.mu.Unlock()
		h := fuse.OutHeader{Length: uint32(outHeaderSize), Status: -int32(e), Unique: unique}
		_ = sysWrite(c.fd, unsafe.Slice((*byte)(unsafe.Pointer(&h)), outHeaderSize)) // ENOENT: the caller is gone
	}()
	return 0
}

// guarded runs a part of a request that has a goroutine of its own: a panic is that request's EIO here, too.
func (c *conn) guarded(f func() unix.Errno) (e unix.Errno) {
	defer func() {
		if p := recover(); p != nil {
			c.logf("%v\n%s", p, debug.Stack())
			e = unix.EIO
		}
	}()
	return f()
}

// afterwards runs f when the handler need not wait for it: what it asks of the kernel may wait for the handler's answer.
func (c *conn) afterwards(f func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.late.ended {
		return
	}
	c.late.wg.Add(1)
	go func() {
		defer c.late.wg.Done()
		if err := f(); err != nil {
			c.logf("%v", err)
		}
	}()
}

// interrupt cancels a request. conn.mu is held.
func (l *lateAnswers) interrupt(unique uint64) bool {
	cancel, ok := l.waiting[unique]
	if !ok {
		return false
	}
	select {
	case <-cancel:
	default:
		close(cancel)
	}
	return true
}

// endLate cancels all of them and waits until they are gone.
func (c *conn) endLate() {
	c.mu.Lock()
	c.late.ended = true
	for unique := range c.late.waiting {
		c.late.interrupt(unique)
	}
	c.mu.Unlock()
	c.late.wg.Wait()
}
