package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow/bench/rig"
	"github.com/plyfs/plyfs/integration/harness"
)

// Killed while files are written to in every way, some of them partly copied: each file is one of what it
// may be, here, and settled, in the kernel. Some rounds kill several daemons, one after the other.
func TestKilledWhileWriting(t *testing.T) {
	harness.NeedRoot(t)
	rnd := crashRand(t)
	l := harness.NewLayers(t, historyTree())
	kinds := []struct {
		flags []string
		lasts bool
	}{
		{[]string{"--mode", "cached"}, true},
		{[]string{"--mode", "passthrough"}, true},
		{[]string{"--mode", "cached", "-o", "writeback=1"}, false},
	}
	for round := range crashRounds(t, 15) {
		reset(t, l)
		kind := kinds[round%len(kinds)]
		hs := newHistories(t, l.Lowers[0], rnd, kind.lasts)
		flags := append([]string{"--threshold", "8K", "--no-settle"}, kind.flags...)
		var at []moment
		for last := rnd.IntN(3); last >= 0; last-- {
			m := l.Plyfs(t, flags...)
			if at != nil {
				hs.goOn(t, m.Dir, at)
			}
			hs.killWhileRunning(t, m, time.Duration(rnd.Int64N(int64(60*time.Millisecond))), rnd.IntN(2) == 0)
			at = hs.before()
			hs.after(at)
		}
		killed(t, l, func(dir, who string) { hs.check(t, dir, fmt.Sprintf("round %d, %v, %s", round, kind.flags, who), at) })
		if t.Failed() {
			return
		}
	}
}

// killWhileRunning starts the writers, and kills the daemon a while later.
func (hs histories) killWhileRunning(t *testing.T, m *harness.Mount, delay time.Duration, settle bool) {
	t.Helper()
	var dead atomic.Bool
	var writers sync.WaitGroup
	for _, h := range hs {
		writers.Go(func() { h.run(m.Dir, nil, &dead) })
	}
	if settle {
		writers.Go(func() {
			time.Sleep(delay / 2)
			_, _ = harness.Run("settle", m.Dir) // ends with the daemon
		})
	}
	time.Sleep(delay)
	dead.Store(true)
	m.Kill(t)
	writers.Wait()
	hs.noneFailed(t)
}

func (hs histories) noneFailed(t *testing.T) {
	t.Helper()
	for _, h := range hs {
		if h.failed != nil {
			t.Errorf("%s: %v", h.path("", "f"), h.failed)
		}
	}
}

// goOn checks the files and makes what they are the beginning of what follows.
func (hs histories) goOn(t *testing.T, dir string, at []moment) {
	t.Helper()
	hs.check(t, dir, "mounted again", at)
	for _, h := range hs {
		b, state, err := h.look(dir)
		if err != nil {
			t.Fatal(err)
		}
		h.restart(b, state)
	}
}

func (hs histories) check(t *testing.T, dir, where string, at []moment) {
	t.Helper()
	for i, h := range hs {
		if why := h.check(dir, at[i]); why != "" {
			t.Errorf("%s: file %d: %s", where, i, why)
		}
	}
}

// The power fails while files are written to: the upper's filesystem is copied at random moments, by sharing
// its image's extents, which happens between two writes to it. Of each copy what was synced is there, here
// and, settled, in the kernel.
func TestPowerCutWhileWriting(t *testing.T) {
	harness.NeedRoot(t)
	rnd := crashRand(t)
	outer := harness.Filesystem(t, "xfs", 2<<30)
	for round := range max(crashRounds(t, 8)/4, 1) {
		t.Run(itoa(round), func(t *testing.T) {
			im, err := rig.NewImage("ext4", filepath.Join(outer, "disk"+itoa(round)), 600<<20)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := im.Close(); err != nil {
					t.Error(err)
				}
			})
			l := harness.NewLayersOn(t, im.Dir, historyTree())
			hs := newHistories(t, l.Lowers[0], rnd, false)
			m := l.Plyfs(t, "--threshold", "8K", "--no-settle")
			if err := run("sync", "-f", im.Dir); err != nil {
				t.Fatal(err)
			}
			var dead atomic.Bool
			stop := make(chan struct{})
			var running sync.WaitGroup
			for _, h := range hs {
				running.Go(func() { h.run(m.Dir, stop, &dead) })
			}
			running.Go(func() { // what is not asked for gets to the disk too, in its own order
				for {
					select {
					case <-stop:
						return
					case <-time.After(7 * time.Millisecond):
						_ = run("sync", "-f", im.Dir)
					}
				}
			})
			const cuts = 4
			var ats [cuts][]moment
			for i := range cuts {
				time.Sleep(time.Duration(rnd.Int64N(int64(50 * time.Millisecond))))
				if i == 2 {
					running.Go(func() { _, _ = harness.Run("settle", m.Dir) })
				}
				ats[i] = hs.before()
				cloneFile(t, im.Dir+".img", im.Dir+".cut"+itoa(i))
				hs.after(ats[i])
			}
			close(stop)
			running.Wait()
			hs.noneFailed(t)
			m.Close(t)
			for i := range cuts {
				afterCut(t, l, im, i, func(dir, who string) {
					for k := range ats[i] {
						ats[i][k].stateKept = 0 // a name lasts when its directory is synced
					}
					hs.check(t, dir, fmt.Sprintf("cut %d, %s", i, who), ats[i])
				})
			}
		})
	}
}

// afterCut mounts a copy of the disk, and the union on it.
func afterCut(t *testing.T, l *harness.Layers, im *rig.Image, i int, check func(dir, who string)) {
	t.Helper()
	disk, mnt := im.Dir+".cut"+itoa(i), filepath.Join(l.Root, "cut")
	for _, dir := range []string{mnt, mnt + "-view"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := run("mount", "-o", "loop", disk, mnt); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Error(err)
		}
		os.Remove(disk)
	}()
	up, err := filepath.Rel(im.Dir, filepath.Dir(l.Upper))
	if err != nil {
		t.Fatal(err)
	}
	at := &harness.Layers{Root: l.Root, Lowers: l.Lowers, Upper: filepath.Join(mnt, up, "upper"), Work: filepath.Join(mnt, up, "work"), Mnt: mnt + "-view"}
	killed(t, at, check)
}

// cloneFile copies a file at one moment: nothing is written to it meanwhile.
func cloneFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := unix.IoctlFileClone(int(out.Fd()), int(in.Fd())); err != nil {
		t.Fatal(err)
	}
}
