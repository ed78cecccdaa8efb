package copyup

import (
	"os"
	"testing"
	"time"

	"github.com/plyfs/plyfs/integration/harness"
)

// slack is what the filesystem needs besides, and one block.
const slack = 32 << 10

// TestIdleWorkerKeepsItsBudget looks all the time at how much of a file has been completed: it is no more than the
// budget for each second, begun ones included. (A slow machine makes it less.)
func TestIdleWorkerKeepsItsBudget(t *testing.T) {
	const size, budget = 1 << 20, 256 << 10
	l := harness.NewLayers(t, "F big 1M")
	m := l.Plyfs(t, "--settle-budget", "256K", "--no-settle")
	want := writeAt(t, m.Path("big"), harness.Bytes(size), "!", 1000)
	at := l.Upper + "/big"
	before, looked := used(t, at), time.Now()
	var began time.Time // not later than this the worker began
	eventually(t, "the mark goes", func() bool {
		n := used(t, at) - before
		now := time.Now()
		if n == 0 {
			looked = now
			return false
		}
		if began.IsZero() {
			began = looked
		}
		if most := int64(now.Sub(began).Seconds()*budget) + budget + slack; n > most {
			t.Fatalf("%d bytes copied in %v", n, now.Sub(began))
		}
		return !marked(l)
	})
	sameBytes(t, at, want)
}

// TestIdleWorkerWaits: while files are being copied up the worker does not begin, and stops where it is.
func TestIdleWorkerWaits(t *testing.T) {
	tree := "F big 8M\n"
	for i := range 1000 {
		tree += "f other/" + itoa(i) + " x\n"
	}
	l := harness.NewLayers(t, tree)
	m := l.Plyfs(t, "--settle-budget", "128K", "--no-settle")
	writeAt(t, m.Path("big"), nil, "!", 1000)
	at := l.Upper + "/big"
	next := 0
	// change copies another file up again and again for so long. It fails when it could not do so often enough
	// for the worker to take it for busy.
	change := func(long time.Duration) {
		t.Helper()
		for end := time.Now().Add(long); time.Now().Before(end); {
			began := time.Now()
			time.Sleep(100 * time.Millisecond)
			must(t, os.Chmod(m.Path("other/"+itoa(next)), 0o600))
			next++
			if time.Since(began) > time.Second {
				t.Skip("this machine is too slow to keep the mount busy")
			}
		}
	}
	before := used(t, at)
	change(3 * time.Second)
	if n := used(t, at) - before; n != 0 {
		t.Errorf("%d bytes were copied while others changed files", n)
	}
	eventually(t, "the worker begins", func() bool { return used(t, at) > before })
	change(time.Second) // it may be in the middle of a second's bytes
	before = used(t, at)
	change(3 * time.Second)
	if n := used(t, at) - before; n > slack {
		t.Errorf("%d bytes were copied while others changed files again", n)
	}
	if !marked(l) {
		t.Error("the file is complete: the test shows nothing")
	}
}
