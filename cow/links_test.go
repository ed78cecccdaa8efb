package cow

import (
	"os"
	"testing"
	"time"
)

// A walk meets an unfinished file once by each of its names; settling it locks it once.
func TestSettleLinked(t *testing.T) {
	w := newWorld(t, t.TempDir(), Config{Threshold: 1})
	if w.e.Block() == 0 {
		t.Skip("no unfinished files on this filesystem")
	}
	want := pattern(300<<10, 1)
	must(t, os.WriteFile(w.lowerPath("f"), want, 0o644))
	w.leave("f", &Want{Size: -1, Range: true, Cause: CauseWrite})
	for _, name := range []string{"g", "h"} {
		must(t, os.Link(w.upperPath("f"), w.upperPath(name)))
	}
	w.restart() // the list may lack files now: walk
	done := make(chan error, 1)
	go func() {
		left, err := w.e.Settle(SettleOptions{})
		if left != 0 {
			t.Errorf("%d files are left", left)
		}
		done <- err
	}()
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(time.Minute):
		t.Fatal("settling waits for itself")
	}
	for _, name := range []string{"f", "g", "h"} {
		sameContent(t, w.upperPath(name), want)
	}
}
