package fusefs

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe" // also for linkname

	"golang.org/x/sys/unix"
)

const (
	pageSize = 4096
	maxIO    = 1 << 20 // max_write and max_read: 256 pages, the kernel's default limit

	// A worker reads a message so that the payload of a WRITE begins on a page, and
	// builds an answer so that its payload does.
	msgStart = pageSize - 80 // sizeof(fuse_in_header) + sizeof(fuse_write_in)
	bufSize  = pageSize + maxIO

	// The kernel gives each request to the worker that waited longest, so that all idle
	// workers take turns: the fewer they are, the warmer their caches.
	idleMax    = 2    // more idle workers than this end
	idleRounds = 128  // ... when it was so after each of the last requests of a worker
	idleBurst  = 16   // above this they end at once: each may hold 2 MiB of buffers
	workersMax = 2048 // each may be held by one slow operation
)

// conn is the device of one mount and the workers on it.
type conn struct {
	fd    int
	serve func(*request) unix.Errno
	undo  func(*request)
	logf  func(string, ...any)

	idle atomic.Int32 // workers in read(2), or about to be

	mu   sync.Mutex // guards pool, err, late
	pool map[*worker]struct{}
	err  error
	wg   sync.WaitGroup
	late lateAnswers // guarded by mu
}

func newConn(fd int, serve func(*request) unix.Errno, undo func(*request), logf func(string, ...any)) *conn {
	return &conn{fd: fd, serve: serve, undo: undo, logf: logf, pool: map[*worker]struct{}{}}
}

// worker is one thread's place: its buffers, mapped outside the heap, and the one
// request it serves.
type worker struct {
	conn    *conn
	mem     []byte // what in and buf are parts of
	in      []byte // messages are read at msgStart
	buf     []byte // answers; payload at pageSize
	req     request
	attr    Attr
	entries [entryBatch]Entry

	pipe pipe

	yielded time.Time // see yield
	rounds  int       // see surplus

	current atomic.Uint64 // see interrupt.go
	opcode  atomic.Uint32 // of that request, or of one before
	mu      sync.Mutex    // guards the closing and the replacing of cancel
	cancel  chan struct{}
}

func newWorker(c *conn) (*worker, error) {
	mem, err := unix.Mmap(-1, 0, 2*bufSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("buffers of a worker: %w", err)
	}
	w := &worker{conn: c, mem: mem, in: mem[:bufSize], buf: mem[bufSize:], cancel: make(chan struct{})}
	w.req.w = w
	w.req.out = w.buf[pageSize:]
	w.req.caller.Cancel = w.cancel
	return w, nil
}

func (w *worker) free() {
	w.pipe.close()
	_ = unix.Munmap(w.mem)
}

// run serves until the kernel ends the connection. It returns nil for an unmount.
func (c *conn) run() error {
	c.spawn()
	c.wg.Wait()
	c.endLate()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// spawn adds a worker if there may be one more.
func (c *conn) spawn() {
	w, err := newWorker(c)
	if err != nil {
		c.logf("%v", err)
		return // the others go on; the next request tries again
	}
	c.mu.Lock()
	if len(c.pool) >= workersMax {
		c.mu.Unlock()
		w.free()
		return
	}
	c.pool[w] = struct{}{}
	c.wg.Add(1)
	c.mu.Unlock()
	c.idle.Add(1)
	go w.loop()
}

func (w *worker) loop() {
	c := w.conn
	err := w.requests()
	c.mu.Lock()
	delete(c.pool, w)
	if err != nil && c.err == nil {
		c.err = err
	}
	c.mu.Unlock()
	w.free()
	c.wg.Done()
}

// requests is the loop of one worker: read, serve, write.
func (w *worker) requests() error {
	c, r := w.conn, &w.req
	for {
		n, e := sysRead(c.fd, w.in[msgStart:])
		if e != 0 {
			switch e {
			case unix.EINTR, unix.EAGAIN, unix.ENOENT: // ENOENT: withdrawn while we read it
				continue
			case unix.ENODEV, unix.ECONNABORTED: // unmounted; aborted
				return nil
			}
			return os.NewSyscallError("read /dev/fuse", e)
		}
		if n < inHeaderSize {
			return fmt.Errorf("read /dev/fuse: a message of %d bytes", n)
		}
		if c.idle.Add(-1) == 0 {
			c.spawn()
		}
		r.begin(w.in[msgStart : msgStart+n])
		unique := r.hdr.Unique
		w.opcode.Store(r.hdr.Opcode)
		w.start(unique)
		e = c.serve(r)
		w.done()
		if !r.silent {
			if e := sysWrite(c.fd, r.frame(w.buf, e)); e != 0 {
				// ENOENT: the caller is gone; ENODEV: the mount is. Anything else is a
				// malformed answer, and the caller would wait for ever without this one.
				c.undo(r)
				if e != unix.ENOENT && e != unix.ENODEV {
					c.logf("%s: answer not taken: %v", opNames[r.hdr.Opcode%opMax], e)
					r.hdr.Unique = unique
					_ = sysWrite(c.fd, r.frame(w.buf, unix.EIO))
				}
			}
		}
		if w.surplus(c.idle.Add(1)) && c.retire() {
			return nil
		}
		w.yield()
	}
}

// yieldAfter is well below the 10 ms of forcePreemptNS in the Go runtime, see yield.
const yieldAfter = 5 * time.Millisecond

// yield passes through the Go scheduler now and then. A goroutine that only makes system
// calls never does, and the runtime's monitor thread (retake in runtime/proc.go) takes it
// for one that should be preempted after 10 ms: from then on it wakes every 20 µs to take
// the processor away during a system call, which costs more than most requests.
func (w *worker) yield() {
	if now := time.Now(); now.Sub(w.yielded) > yieldAfter {
		goyield()
		w.yielded = now
	}
}

// goyield is runtime.Gosched, except that the goroutine stays on its processor, and no thread is
// woken to look for others to run, which costs as much as a request does.
//
//go:linkname goyield runtime.goyield
func goyield()

// surplus says whether there are too many idle workers, idle now, for long enough.
func (w *worker) surplus(idle int32) bool {
	if idle <= idleMax {
		w.rounds = 0
		return false
	}
	w.rounds++
	return w.rounds > idleRounds || idle > idleBurst
}

// retire says whether the calling worker, just idle, should end: never the last.
func (c *conn) retire() bool {
	for {
		n := c.idle.Load()
		if n <= idleMax {
			return false
		}
		if c.idle.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

func (c *conn) workers() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pool)
}

func (c *conn) interrupt(unique uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.late.interrupt(unique) {
		return true
	}
	for w := range c.pool {
		if w.interrupt(unique) {
			return true
		}
	}
	return false
}

// sysRead and sysWrite are single system calls without the retries and checks of
// package os: the device gives and takes whole messages.
func sysRead(fd int, b []byte) (int, unix.Errno) {
	n, _, e := unix.Syscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), e
}

func sysWrite(fd int, b []byte) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return e
}

var errShort = errors.New("message too short")
