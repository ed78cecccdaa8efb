package cow

import "sync"

// rangeLock keeps apart the writers of overlapping blocks of one file. The zero
// value is unlocked.
type rangeLock struct {
	mu   sync.Mutex
	cond *sync.Cond // nil until somebody waits; guarded by mu
	held []span     // guarded by mu
}

type span struct{ from, to int64 }

// lock waits until nobody holds a block of from .. to.
func (l *rangeLock) lock(from, to int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.busy(from, to) {
		if l.cond == nil {
			l.cond = sync.NewCond(&l.mu)
		}
		l.cond.Wait()
	}
	l.held = append(l.held, span{from, to})
}

func (l *rangeLock) busy(from, to int64) bool {
	for _, s := range l.held {
		if from < s.to && s.from < to {
			return true
		}
	}
	return false
}

func (l *rangeLock) unlock(from, to int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.held {
		if s == (span{from, to}) {
			l.held[i] = l.held[len(l.held)-1]
			l.held = l.held[:len(l.held)-1]
			break
		}
	}
	if l.cond != nil {
		l.cond.Broadcast()
	}
}
