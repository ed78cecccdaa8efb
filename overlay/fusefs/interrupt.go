package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A worker says in w.current which request it serves: its unique number, which the
// kernel keeps even. Whoever interrupts it sets the lowest bit; only then is the
// worker's cancel channel closed, and only then must it be replaced. Requests
// that nobody interrupts pay two atomic stores and no allocation.
const interrupted = 1

// start publishes the request before it is served. An INTERRUPT has the number of its
// request with the lowest bit set (FUSE_INT_REQ_BIT): published, it would look like
// that request, interrupted already.
func (w *worker) start(unique uint64) {
	if unique&interrupted == 0 {
		w.current.Store(unique)
	}
}

// done withdraws it. After it returns nobody closes the channel of this request.
func (w *worker) done() {
	if w.current.Swap(0)&interrupted == 0 {
		return
	}
	w.mu.Lock() // the interrupter closes the channel under it
	w.cancel = make(chan struct{})
	w.req.caller.Cancel = w.cancel
	w.mu.Unlock()
}

// interrupt closes the channel if w still serves the request.
func (w *worker) interrupt(unique uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.current.CompareAndSwap(unique, unique|interrupted) {
		return w.current.Load() == unique|interrupted
	}
	close(w.cancel)
	return true
}

// interrupt serves INTERRUPT. The kernel sends it only for requests that were
// read; a worker that read one and did not publish it yet is caught by EAGAIN, upon
// which the kernel sends the INTERRUPT again (unless the request was answered
// meanwhile).
func (s *session[N]) interrupt(r *request, _ N) unix.Errno {
	in := decode[fuse.InterruptIn](r)
	if in == nil {
		return unix.EIO
	}
	if s.conn.interrupt(in.Unique) {
		r.silent = true
		return 0
	}
	return unix.EAGAIN
}

func (s *session[N]) destroy(*request, N) unix.Errno { return 0 }
