package cow

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

var errKilled = errors.New("killed")

// TestKilledInTheMiddle stops one operation at each of its steps, starts again,
// and expects the file from before it or from after it.
func TestKilledInTheMiddle(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, Config{Threshold: 1})
		round := 0
		rapid.Check(t, func(rt *rapid.T) {
			round++
			name := fmt.Sprintf("f%d", round)
			m := &fileModel{w: w, name: name}
			m.want = lowerContent(t, w.lowerPath(name), 20*minBlock+rapid.Int64Range(0, minBlock).Draw(rt, "tail"), true)
			w.leave(name, byRange)
			m.p = w.partial(name)
			defer func() {
				m.p.Close()
				os.Remove(w.upperPath(name))
				os.Remove(w.lowerPath(name))
			}()
			a := m.actions()
			for range rapid.IntRange(0, 4).Draw(rt, "before") {
				a[rapid.SampledFrom([]string{"write", "truncate", "punch", "allocate", "complete"}).Draw(rt, "action")](rt)
			}
			after := rapid.IntRange(0, 3).Draw(rt, "steps")
			w.e.crashAt = func(string) error {
				if after--; after < 0 {
					return errKilled
				}
				return nil
			}
			before := bytes.Clone(m.want)
			var err error
			switch rapid.SampledFrom([]string{"truncate", "complete", "extend"}).Draw(rt, "last") {
			case "truncate":
				size := m.offset(rt, "size")
				err = m.p.Truncate(size)
				m.grow(size)
				m.want = m.want[:size:size]
			case "complete":
				_, err = m.p.Complete(0, nil)
			case "extend":
				off := int64(len(m.want)) + rapid.Int64Range(0, 2*minBlock).Draw(rt, "gap")
				b := pattern(5000, 99)
				_, err = m.p.WriteAt(b, off)
				m.grow(off + 5000)
				copy(m.want[off:], b)
			}
			if err != nil && !errors.Is(err, errKilled) {
				rt.Fatal(err)
			}
			m.p.Close()
			w.restart() // also forgets crashAt
			m.p = w.partial(name)
			got := make([]byte, 2*modelMax)
			n, rerr := m.p.ReadAt(got, 0)
			if rerr != nil {
				rt.Fatal(rerr)
			}
			got = got[:n]
			switch {
			case bytes.Equal(got, m.want):
			case err != nil && bytes.Equal(got, before):
				m.want = before
			default:
				rt.Fatalf("%d bytes: neither the %d before (differ at %d) nor the %d after (differ at %d), killed: %v",
					n, len(before), firstDiff(got, before), len(m.want), firstDiff(got, m.want), err)
			}
			// And it can be gone on with.
			a["write"](rt)
			a["truncate"](rt)
			a["complete"](rt)
			a[""](rt)
		})
	})
}

// TestPowerCut copies the disk at a random moment, mounts the copy and recovers:
// what was synced is there, of the rest each byte is old or new.
func TestPowerCut(t *testing.T) {
	needRoot(t)
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			lower := t.TempDir()
			for round := range 4 {
				dir, image := filesystemImage(t, kind, map[string]int{"ext4": 64, "xfs": 320, "btrfs": 128}[kind])
				w := newWorldOn(t, lower, dir, Config{Threshold: 1})
				const size = 6<<20 + 1234
				want := pattern(size, byte(round*2))
				must(t, os.WriteFile(w.lowerPath("f"), want, 0o644))
				w.leave("f", byRange)
				unix.Sync()
				p := w.partial("f")
				synced := bytes.Clone(want)
				for i := range 40 + 20*round {
					off := (i * 104729 * (round + 3)) % (size - 20_000)
					n := 1 + i*577%20_000
					b := bytes.Repeat([]byte{byte(2 * i)}, n)
					_, err := p.WriteAt(b, int64(off))
					must(t, err)
					copy(want[off:], b)
					switch {
					case i == 10+7*round:
						must(t, p.Sync(false))
						copy(synced, want)
					case i == 20+8*round && round%2 == 1:
						_, err := p.Complete(3<<20, nil)
						must(t, err)
					case i == 30+9*round && round > 1:
						_, err := p.Complete(0, nil) // ends with a sync
						must(t, err)
						copy(synced, want)
					}
				}
				p.Close()
				cut := mountCopy(t, kind, image)
				w2 := openWorld(t, w.lower.Path, cut+w.dir[len(dir):], Config{Threshold: 1})
				must(t, w2.e.CleanWork())
				q := w2.partial("f")
				got := make([]byte, size+1)
				n, err := q.ReadAt(got, 0)
				must(t, err)
				if n != size {
					t.Fatalf("round %d: size %d", round, n)
				}
				q.Close()
				// Between synced and want several writes may have met one byte: only
				// bytes that no later write touched are compared.
				for i := range synced {
					if synced[i] == want[i] && got[i] != want[i] {
						t.Fatalf("round %d: byte %d is %#x, want %#x", round, i, got[i], want[i])
					}
				}
				if left, err := w2.e.Settle(SettleOptions{}); left != 0 || err != nil {
					t.Fatalf("round %d: settle after the cut: %d, %v, %q", round, left, err, w2.logged)
				}
				sameContent(t, w2.upperPath("f"), got[:n])
			}
		})
	}
}

// TestMarkBeforeFile cuts the power after a new file was synced, in each way there is: where the
// disk has the unfinished file it has the mark.
func TestMarkBeforeFile(t *testing.T) {
	needRoot(t)
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			lower := t.TempDir()
			seen := 0
			for how, sync := range map[string]func(w *world, p *Partial){
				"fsync":  func(w *world, p *Partial) { must(t, p.Sync(false)) },
				"syncfs": func(w *world, p *Partial) { must(t, unix.Syncfs(p.fd)) },
				"neighbour": func(w *world, p *Partial) {
					f, err := os.Create(w.upperPath("neighbour"))
					must(t, err)
					defer f.Close()
					must(t, w.e.Fsync(int(f.Fd()), false)) // as FS.Fsync does
				},
			} {
				dir, image := filesystemImage(t, kind, map[string]int{"ext4": 64, "xfs": 320, "btrfs": 128}[kind])
				w := newWorldOn(t, lower, dir, Config{Threshold: 1})
				must(t, os.WriteFile(w.lowerPath("f"), pattern(1<<20, 1), 0o644))
				unix.Sync() // the directories are there, the mark is not
				w.leave("f", byRange)
				p := w.partial("f")
				sync(w, p)
				p.Close()
				cut := mountCopy(t, kind, image)
				at := func(path string) string { return cut + path[len(dir):] }
				if _, err := os.Stat(at(w.upperPath("f"))); err != nil {
					continue
				}
				seen++
				if _, err := os.Stat(filepath.Join(at(w.work.Path), incompatDir, PartialMark)); err != nil {
					t.Errorf("after %s the disk has an unfinished file and no mark: %v", how, err)
				}
			}
			if seen < 2 {
				t.Errorf("the file was on the disk after %d kinds of sync only", seen)
			}
		})
	}
}

// TestSmallCopyOutlivesPowerCut: a small file is copied without waiting for the disk. Where the disk has its new
// name and not yet its bytes, it has the length too, and the lower's bytes show.
func TestSmallCopyOutlivesPowerCut(t *testing.T) {
	needRoot(t)
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			lower := t.TempDir()
			dir, image := filesystemImage(t, kind, map[string]int{"ext4": 64, "xfs": 320, "btrfs": 128}[kind])
			w := newWorldOn(t, lower, dir, Config{Threshold: 1 << 20})
			must(t, os.WriteFile(w.lowerPath("f"), pattern(3000, 1), 0o644))
			unix.Sync()
			w.leave("f", byRange)
			// What brings a neighbour to the disk brings names, and not the data of others.
			f, err := os.Create(w.upperPath("neighbour"))
			must(t, err)
			defer f.Close()
			must(t, w.e.Fsync(int(f.Fd()), false))
			cut := mountCopy(t, kind, image)
			w2 := openWorld(t, w.lower.Path, cut+w.dir[len(dir):], Config{Threshold: 1 << 20})
			must(t, w2.e.CleanWork())
			if _, err := os.Stat(w2.upperPath("f")); err != nil {
				if kind == "ext4" { // elsewhere a sync may take one file ahead
					t.Fatal("the disk has not even its name: this tests nothing")
				}
				return
			}
			p := w2.partial("f")
			defer p.Close()
			w2.content(p, pattern(3000, 1))
		})
	}
}
