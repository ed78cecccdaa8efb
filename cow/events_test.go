package cow

import (
	"testing"
	"time"
)

// TestNobodyListens: without a listener events are counted and nothing else, also after one has gone.
func TestNobodyListens(t *testing.T) {
	b := NewBus()
	kept := func(at time.Time, took time.Duration) bool {
		t.Helper()
		before := len(b.ring)
		b.Publish(Event{Time: at, Copy: took, Method: MethodLoop, Cause: CauseWrite, PID: 1})
		return len(b.ring) > before
	}
	now := time.Now()
	if kept(now, 0) {
		t.Error("kept for nobody")
	}
	if n := testing.AllocsPerRun(100, func() { b.Publish(Event{Time: now, PID: 1}) }); n > 0 {
		t.Errorf("%v allocations for nobody", n)
	}
	b.Cursor()
	if !kept(time.Now(), 0) {
		t.Error("lost for a listener")
	}
	if late := time.Now().Add(2 * listening); kept(late, 0) || !kept(late, 2*listening) {
		t.Error("whether there is a listener is decided by when the copy-up began")
	}
	_, end := b.Subscribe(1)
	if !kept(time.Now().Add(2*listening), 0) {
		t.Error("lost for a subscriber")
	}
	end()
	if kept(time.Now().Add(2*listening), 0) {
		t.Error("kept for a subscriber that is gone")
	}
	if b.Sums().Total.Count == 0 {
		t.Error("nothing was counted")
	}
}
