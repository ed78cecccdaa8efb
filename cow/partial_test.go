package cow

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var byRange = &Want{Size: -1, Range: true, Cause: CauseWrite}

func (w *world) content(p *Partial, want []byte) {
	w.t.Helper()
	got := make([]byte, len(want)+1)
	n, err := p.ReadAt(got, 0)
	must(w.t, err)
	if !bytes.Equal(got[:n], want) {
		w.t.Fatalf("%d bytes differ from the wanted %d at %d", n, len(want), firstDiff(got[:n], want))
	}
}

func keepTimes(t testing.TB, path string) time.Time {
	t.Helper()
	st, err := os.Stat(path)
	must(t, err)
	return st.ModTime()
}

func TestFirstWriteCopiesItsBlocksOnly(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, Config{})
		const size = 64 << 20
		want := pattern(size, 2)
		must(t, os.WriteFile(w.lowerPath("f"), want, 0o644))
		w.leave("f", byRange)
		p := w.partial("f")
		defer p.Close()
		n, err := p.WriteAt([]byte("new"), 33<<20+5)
		if n != 3 || err != nil {
			t.Fatal(n, err)
		}
		copy(want[33<<20+5:], "new")
		must(t, p.Sync(false))
		var st unix.Statx_t
		must(t, p.Stat(&st))
		if st.Blocks*512 > 64<<10 || st.Size != size {
			t.Errorf("occupies %d of %d bytes", st.Blocks*512, st.Size)
		}
		w.content(p, want)
		fd, run, release, err := p.Source(33<<20, 1<<20)
		must(t, err)
		if fd != p.fd || run != p.g {
			t.Errorf("source of the written block: %d bytes, upper %v", run, fd == p.fd)
		}
		release()
		for done := false; !done; {
			done, err = p.Complete(10<<20, nil)
			must(t, err)
		}
		sameContent(t, w.upperPath("f"), want)
	})
}

func TestSparseStaysSparse(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, Config{})
		f, err := os.Create(w.lowerPath("f"))
		must(t, err)
		must(t, f.Truncate(64<<20))
		_, err = f.WriteAt([]byte("data"), 10<<20)
		must(t, err)
		must(t, f.Close())
		w.leave("f", byRange)
		p := w.partial("f")
		defer p.Close()
		_, err = p.WriteAt([]byte{1}, 20<<20+1)
		must(t, err)
		for _, want := range []int64{10 << 20, 20 << 20} {
			if off, err := p.Seek(want-1<<20, unix.SEEK_DATA); off != want || err != nil {
				t.Errorf("data at %d, %v, want %d", off, err, want)
			}
		}
		if done, err := p.Complete(0, nil); !done || err != nil {
			t.Fatal(done, err)
		}
		want, err := os.ReadFile(w.lowerPath("f"))
		must(t, err)
		want[20<<20+1] = 1
		sameContent(t, w.upperPath("f"), want)
		var st unix.Statx_t
		must(t, p.Stat(&st))
		if st.Blocks*512 > 1<<20 {
			t.Errorf("occupies %d bytes", st.Blocks*512)
		}
	})
}

// TestChangedLower: present blocks can be read, the others are refused, nothing is
// mixed, and there is a way out.
func TestChangedLower(t *testing.T) {
	const size = 1 << 20
	old := pattern(size, 3)
	for name, change := range map[string]func(t *testing.T, path string){
		"written": func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			must(t, err)
			defer f.Close()
			_, err = f.WriteAt([]byte("x"), 5)
			must(t, err)
			must(t, os.Chtimes(path, keepTimes(t, path), keepTimes(t, path).Add(1)))
		},
		"replaced": func(t *testing.T, path string) {
			st, err := os.Stat(path)
			must(t, err)
			must(t, os.WriteFile(path+"2", pattern(size, 4), 0o644))
			must(t, os.Chtimes(path+"2", st.ModTime(), st.ModTime()))
			must(t, os.Rename(path+"2", path))
		},
		"cut":     func(t *testing.T, path string) { must(t, os.Truncate(path, 100)) },
		"gone":    func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"symlink": func(t *testing.T, path string) { must(t, os.Remove(path)); must(t, os.Symlink("/etc/passwd", path)) },
		"a directory": func(t *testing.T, path string) {
			must(t, os.Remove(path))
			must(t, os.Mkdir(path, 0o755))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), Config{Threshold: 1})
			must(t, os.WriteFile(w.lowerPath("f"), old, 0o644))
			w.leave("f", byRange)
			p := w.partial("f")
			if p.g == 0 {
				t.Skip("this filesystem holds no unfinished files")
			}
			block := pattern(int(p.g), 9)
			_, err := p.WriteAt(block, p.g)
			must(t, err)
			p.Close()

			change(t, w.lowerPath("f"))
			w.restart()
			p = w.partial("f")
			defer p.Close()
			refused := func(what string, err error) {
				t.Helper()
				if !errors.Is(err, ErrLowerChanged) || !errors.Is(err, unix.EIO) {
					t.Errorf("%s: %v", what, err)
				}
			}
			buf := make([]byte, p.g)
			_, err = p.ReadAt(buf, 0)
			refused("read", err)
			_, err = p.WriteAt([]byte("x"), 3*p.g+1)
			refused("write of part of a block", err)
			_, err = p.Complete(0, nil)
			refused("complete", err)
			if left, err := w.e.Settle(SettleOptions{}); left != 1 || err != nil {
				t.Errorf("settle: %d, %v", left, err)
			}
			if n, err := p.ReadAt(buf, p.g); n != len(buf) || err != nil || !bytes.Equal(buf, block) {
				t.Errorf("what was written: %d, %v", n, err)
			}
			if len(w.logged) != 1 || !strings.Contains(w.logged[0], `"f"`) {
				t.Errorf("logged %q", w.logged)
			}
			must(t, p.Truncate(0))
			if !p.Finished() {
				t.Error("an empty file still needs its lower")
			}
			if left, err := w.e.Settle(SettleOptions{}); left != 0 || err != nil {
				t.Errorf("settle: %d, %v", left, err)
			}
		})
	}
}

// TestLowerChangedWhileOpen: a lower that is written to while it is being read is refused; one that loses
// its name is still what it was.
func TestLowerChangedWhileOpen(t *testing.T) {
	write := func(path string) {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		defer f.Close()
		_, err = f.WriteAt([]byte("x"), 500_000)
		must(t, err)
	}
	for name, c := range map[string]struct {
		change  func(path string)
		refused bool
	}{
		"written to": {func(path string) {
			was := keepTimes(t, path)
			write(path)
			must(t, os.Chtimes(path, was, was.Add(1)))
		}, true},
		"written to, and its time set back": {func(path string) {
			was := keepTimes(t, path)
			write(path)
			must(t, os.Chtimes(path, was, was))
		}, true},
		"removed":  {func(path string) { must(t, os.Remove(path)) }, false},
		"replaced": {func(path string) { must(t, os.Rename(path+"2", path)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), Config{Threshold: 1})
			want := pattern(1<<20, 3)
			must(t, os.WriteFile(w.lowerPath("f"), want, 0o644))
			must(t, os.WriteFile(w.lowerPath("f2"), pattern(1<<20, 4), 0o644))
			w.leave("f", byRange)
			p := w.partial("f")
			defer p.Close()
			_, err := p.ReadAt(make([]byte, 10), 0)
			must(t, err)
			c.change(w.lowerPath("f"))
			_, err = p.Complete(0, nil)
			if errors.Is(err, ErrLowerChanged) != c.refused || p.Finished() == c.refused {
				t.Errorf("%v, finished: %v", err, p.Finished())
			}
			if !c.refused {
				sameContent(t, w.upperPath("f"), want)
			}
		})
	}
}

// TestFallocateInterrupted: what has to bring in much of the lower ends with EINTR when the caller is hit by a
// signal, and nothing reads differently.
func TestFallocateInterrupted(t *testing.T) {
	w := newWorld(t, t.TempDir(), Config{Threshold: 1})
	want := pattern(1<<20, 3)
	must(t, os.WriteFile(w.lowerPath("f"), want, 0o644))
	w.leave("f", byRange)
	p := w.partial("f")
	defer p.Close()
	cancel := make(chan struct{})
	close(cancel)
	for _, mode := range []uint32{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE} {
		if err := p.Fallocate(mode, 0, 1<<19, cancel); !errors.Is(err, unix.EINTR) {
			t.Errorf("mode %#x: %v", mode, err)
		}
	}
	w.content(p, want)
}

// TestZeroRange: what the upper's filesystem does not know is refused, and changes nothing.
func TestZeroRange(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, Config{Threshold: 1})
		plain, err := os.Create(w.upperPath("plain"))
		must(t, err)
		defer plain.Close()
		must(t, plain.Truncate(100_000))
		for i, end := range []int64{50_000, 100_000} {
			name := fmt.Sprint("f", i)
			want := pattern(100_000, 7)
			must(t, os.WriteFile(w.lowerPath(name), want, 0o644))
			w.leave(name, byRange)
			p := w.partial(name)
			defer p.Close()
			known := ignoringEINTR(func() error { return unix.Fallocate(int(plain.Fd()), unix.FALLOC_FL_ZERO_RANGE, 10_000, end-10_000) })
			if err := p.Fallocate(unix.FALLOC_FL_ZERO_RANGE, 10_000, end-10_000, nil); err != known {
				t.Errorf("up to %d: %v, and of a plain file %v", end, err, known)
			}
			if known == nil {
				clear(want[10_000:end])
			}
			w.content(p, want)
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, Config{Threshold: 1})
		const size, writers, per = 8 << 20, 4, 300
		want := pattern(size, 5)
		must(t, os.WriteFile(w.lowerPath("f"), want, 0o644))
		w.leave("f", byRange)
		p := w.partial("f")
		defer p.Close()
		// Each writer owns every fourth span of 700 bytes: blocks are shared.
		const span = 700
		var wg, readers sync.WaitGroup
		var stop atomic.Bool
		fail := make(chan error, 16)
		for id := range writers {
			wg.Go(func() {
				for i := range per {
					off := int64((i*7919%(size/span/writers-1))*writers+id) * span
					if n, err := p.WriteAt(bytes.Repeat([]byte{0xee}, span), off); n != span || err != nil {
						fail <- fmt.Errorf("write at %d: %d, %w", off, n, err)
						return
					}
				}
			})
		}
		readers.Go(func() {
			buf := make([]byte, 10_000)
			for off := int64(0); !stop.Load(); off = (off + 7777) % size {
				n, err := p.ReadAt(buf, off)
				if err != nil {
					fail <- err
					return
				}
				for i, c := range buf[:n] {
					if k := off + int64(i); c != want[k] && c != 0xee {
						fail <- fmt.Errorf("byte %d is %#x, neither old nor new", k, c)
						return
					}
				}
			}
		})
		wg.Go(func() {
			for done := false; !done; {
				var err error
				if done, err = p.Complete(512<<10, nil); err != nil {
					fail <- err
					return
				}
			}
		})
		wg.Wait()
		stop.Store(true)
		readers.Wait()
		select {
		case err := <-fail:
			t.Fatal(err)
		default:
		}
		for id := range writers {
			for i := range per {
				off := ((i*7919%(size/span/writers-1))*writers + id) * span
				for j := range span {
					want[off+j] = 0xee
				}
			}
		}
		if !p.Finished() {
			t.Error("not finished")
		}
		sameContent(t, w.upperPath("f"), want)
	})
}

// TestReadWhileCut: readers of the lower file hold no lock that a truncation takes.
func TestReadWhileCut(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, Config{Threshold: 1})
		const size = 2 << 20
		want := pattern(size, 9)
		must(t, os.WriteFile(w.lowerPath("f"), want, 0o644))
		w.leave("f", byRange)
		p := w.partial("f")
		defer p.Close()
		var readers sync.WaitGroup
		var stop atomic.Bool
		for range 2 {
			readers.Go(func() {
				buf := make([]byte, 100_000)
				for off := int64(0); !stop.Load(); off = (off + 77_777) % (size / 4) {
					n, err := p.ReadAt(buf, off)
					if err != nil || !bytes.Equal(buf[:n], want[off:off+int64(n)]) {
						t.Errorf("%d bytes at %d: %v, or not what the lower has", n, off, err)
						return
					}
				}
			})
		}
		for cut := int64(size); cut > size/2; cut -= 10_000 {
			must(t, p.Truncate(cut))
			must(t, p.Truncate(cut+5000))
		}
		stop.Store(true)
		readers.Wait()
	})
}

// TestReadOnlyMode: who serves as a plain user may not write to attributes of a file
// whose mode says so, and must nevertheless.
func TestReadOnlyMode(t *testing.T) {
	w := newWorld(t, t.TempDir(), Config{Threshold: 1})
	want := pattern(100_000, 1)
	must(t, os.WriteFile(w.lowerPath("f"), want, 0o444))
	must(t, os.Symlink("x", w.lowerPath("l")))
	w.copyUp("l", &Want{Size: -1, Origin: []byte("origin")})
	src := w.source("f")
	w.e.pairOf(&src.Stat).noClone.Store(true)
	s, err := w.stage("f", &Want{Size: -1, Range: true, Origin: []byte("origin")})
	must(t, err)
	defer s.Close()
	w.commit(s, "f")
	p, err := w.e.OpenPartial(s.FD, "f")
	must(t, err)
	defer p.Close()
	must(t, p.Truncate(50_000))
	w.content(p, want[:50_000])
	if left, err := w.e.Settle(SettleOptions{}); left != 0 || err != nil || !p.Finished() {
		t.Errorf("left %d, %v, %q", left, err, w.logged)
	}
	sameContent(t, w.upperPath("f"), want[:50_000])
	if st, err := os.Stat(w.upperPath("f")); err != nil || st.Mode() != 0o444 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

// TestUnfinishedLayerIsRefused: an unfinished file of another mount's upper is not
// copied up as if its holes were its data.
func TestUnfinishedLayerIsRefused(t *testing.T) {
	w := newWorld(t, t.TempDir(), Config{})
	must(t, os.WriteFile(w.lowerPath("f"), pattern(1000, 1), 0o644))
	must(t, unix.Setxattr(w.lowerPath("f"), w.e.recordAttr, someRecord().Encode(), 0))
	_, err := w.stage("f", all())
	wantErrno(t, err, unix.EIO)
	w.noLeftovers()
}

func TestHugePagesAreNotTrusted(t *testing.T) {
	needRoot(t)
	dir := filesystem(t, "tmpfs", 64, "huge=always")
	w := newWorld(t, dir, Config{Threshold: 1})
	if w.e.Block() != 0 || len(w.logged) != 1 {
		t.Errorf("block %d, logged %q", w.e.Block(), w.logged)
	}
	want := pattern(3<<20, 1)
	must(t, os.WriteFile(w.lowerPath("f"), want, 0o644))
	if s := w.copyUp("f", byRange); s.Partial {
		t.Error("unfinished")
	}
	sameContent(t, w.upperPath("f"), want)
}

// TestExtentSizeHint: XFS allocates around what is written, and a read makes data
// of that; the probe finds out.
func TestExtentSizeHint(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("xfs_io"); err != nil {
		t.Skip("xfs_io is not installed")
	}
	dir := filesystem(t, "xfs", 512)
	if out, err := exec.Command("xfs_io", "-c", "extsize 1m", dir).CombinedOutput(); err != nil {
		t.Skipf("extsize: %s", out)
	}
	w := newWorld(t, dir, Config{Threshold: 1})
	want := pattern(3<<20, 1)
	must(t, os.WriteFile(w.lowerPath("f"), want, 0o644))
	src := w.source("f")
	w.e.pairOf(&src.Stat).noClone.Store(true)
	s := w.copyUp("f", byRange)
	t.Logf("block %d, method %s", w.e.Block(), s.Method)
	if !s.Partial {
		return
	}
	p := w.partial("f")
	_, err := p.WriteAt([]byte("x"), 1<<20)
	must(t, err)
	want[1<<20] = 'x'
	w.content(p, want)
	buf := make([]byte, 1<<20)
	_, err = unix.Pread(p.fd, buf, 1<<20-4096*4) // as read-ahead would
	must(t, err)
	p.Close()
	w.restart()
	p = w.partial("f")
	defer p.Close()
	w.content(p, want)
}
