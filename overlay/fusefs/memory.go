package fusefs

import (
	"sync/atomic"
	"time"
)

const (
	forgottenMany = 10_000                 // nodes: a few MiB
	forgottenCalm = 500 * time.Millisecond // between two looks whether the kernel still forgets
)

// memory gives back what forgotten nodes held, after the kernel has forgotten many: the Go
// runtime collects by itself when as much is allocated again, which may be never, and then keeps
// most of it.
type memory struct {
	forgotten atomic.Int64 // since memory was given back
	waiting   atomic.Bool  // somebody will look
	release   func()
}

// forgot is told of n nodes the kernel has forgotten.
func (m *memory) forgot(n int) {
	if m.forgotten.Add(int64(n)) >= forgottenMany && !m.waiting.Load() && m.waiting.CompareAndSwap(false, true) {
		m.later(0)
	}
}

// later gives back memory as soon as no more is forgotten; seen is what was when last looked.
func (m *memory) later(seen int64) {
	time.AfterFunc(forgottenCalm, func() {
		if now := m.forgotten.Load(); now != seen {
			m.later(now)
			return
		}
		m.forgotten.Store(0)
		m.waiting.Store(false)
		m.release()
	})
}
