package cow

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// steady keeps whoever looks at or changes the attributes of an upper file from
// the moments in which a completion has them in hand: it writes, and then puts
// back times, set-id bits and the capability. Without it a chmod, or a write that
// drops a set-id bit, could be undone.
type steady struct {
	begun, ended atomic.Uint64
	locks        [64]sync.RWMutex // by inode; leaves, taken after Partial.attr
}

func (s *steady) of(ino uint64) *sync.RWMutex { return &s.locks[ino%uint64(len(s.locks))] }

// hold begins a moment in which the attributes of the file are not what they should
// be, and returns what ends it.
func (s *steady) hold(ino uint64) func() {
	l := s.of(ino)
	l.Lock()
	s.begun.Add(1)
	return func() {
		s.ended.Add(1)
		l.Unlock()
	}
}

// Look calls stat, which is statx(2) of an object of the upper into st, so that it
// does not see attributes that a completion has changed for a moment. It calls
// it again if it did.
func (e *Engine) Look(st *unix.Statx_t, stat func() error) error {
	before := e.steady.ended.Load()
	idle := e.steady.begun.Load() == before
	if err := stat(); err != nil {
		return err
	}
	if idle && e.steady.begun.Load() == before || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	l := e.steady.of(st.Ino)
	l.RLock()
	defer l.RUnlock()
	return stat()
}

// Change calls f, which changes attributes of the upper file with inode number
// ino, while no completion has them in hand. f must not wait for anything
// else of this package.
func (e *Engine) Change(ino uint64, f func() error) error {
	l := e.steady.of(ino)
	l.Lock()
	defer l.Unlock()
	return f()
}
