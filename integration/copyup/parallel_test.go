package copyup

import (
	"bytes"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/overlay"
)

// readPart reads n bytes of a file past the page cache.
func readPart(t testing.TB, path string, off int64, n int) []byte {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	must(t, err)
	defer f.Close()
	b := aligned(n)
	_, err = f.ReadAt(b, off)
	must(t, err)
	return b
}

// inTime fails when f, which must not wait for what is held up, does.
func inTime(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("waits for a copy-up: ", what)
	}
}

// whileCopying is what must work while /big is being copied: reading it, and everything else.
func whileCopying(t *testing.T, m *harness.Mount, want []byte) {
	inTime(t, "a reader of the file", func() {
		same(t, "read", readPart(t, m.Path("big"), 8192, 64<<10), want[8192:8192+64<<10])
	})
	inTime(t, "stat of the file", func() {
		_, err := os.Stat(m.Path("big"))
		must(t, err)
	})
	inTime(t, "another open", func() { sameBytes(t, m.Path("small"), []byte("something")) })
	inTime(t, "a listing", func() {
		_, err := os.ReadDir(m.Dir)
		must(t, err)
	})
}

func changeSomethingElse(t *testing.T, m *harness.Mount) {
	inTime(t, "creating a file", func() { must(t, os.WriteFile(m.Path("new"), []byte("new"), 0o644)) })
	inTime(t, "another copy-up", func() { must(t, os.WriteFile(m.Path("small"), []byte("something"), 0o644)) })
	inTime(t, "another large copy-up", func() { writeAt(t, m.Path("second"), make([]byte, 8<<20), "!", 0) })
}

// TestNobodyWaitsForACopyUp stops one in its middle.
func TestNobodyWaitsForACopyUp(t *testing.T) {
	const size = 8 << 20
	for _, c := range []struct {
		name, mode string
		inUse      bool // somebody reads the file already
	}{{"cached", "cached", false}, {"passthrough", "passthrough", false}, {"passthrough, in use", "passthrough", true}} {
		t.Run(c.name, func(t *testing.T) {
			g := newGate(t, "F big 8M\n f small something\n F second 300k")
			l := g.layers(t)
			m := l.Plyfs(t, "--threshold", "off", "--mode", c.mode)
			if c.inUse {
				f, err := os.Open(m.Path("big"))
				must(t, err)
				defer f.Close()
			}
			g.openFrom(size/2, 0)
			var writer sync.WaitGroup
			want := harness.Bytes(size)
			writer.Go(func() { writeAt(t, m.Path("big"), want, "!", size-1) })
			g.awaitHeld()
			whileCopying(t, m, harness.Bytes(size))
			changeSomethingElse(t, m)
			if _, err := os.Stat(l.Upper + "/big"); err == nil {
				t.Error("the upper has the file before it is whole")
			}
			g.open(-1)
			writer.Wait()
			sameBytes(t, m.Path("big"), want)
			sameBytes(t, l.Upper+"/big", want)
		})
	}
}

// TestNobodyWaitsForCompletion stops the completion of an unfinished file in its middle.
func TestNobodyWaitsForCompletion(t *testing.T) {
	const size = 8 << 20
	g := newGate(t, "F big 8M\n f small something\n F second 300k")
	l := g.layers(t)
	m := l.Plyfs(t, manual...)
	want := writeAt(t, m.Path("big"), harness.Bytes(size), "!", 100)
	g.openFrom(size/2, 0)
	var done sync.WaitGroup
	done.Go(func() { settle(t, m) })
	g.awaitHeld()
	whileCopying(t, m, want)
	changeSomethingElse(t, m)
	inTime(t, "a writer of other blocks", func() { want = writeAt(t, m.Path("big"), want, string(bytes.Repeat([]byte("else"), 1024)), 6<<20) })
	inTime(t, "chmod", func() { must(t, os.Chmod(m.Path("big"), 0o600)) })
	inTime(t, "utimens", func() { must(t, os.Chtimes(m.Path("big"), time.Unix(1, 2), time.Unix(3, 4))) })
	g.open(-1)
	done.Wait()
	sameBytes(t, m.Path("big"), want)
	st, err := os.Stat(m.Path("big"))
	must(t, err)
	if st.Mode().Perm() != 0o600 || !st.ModTime().Equal(time.Unix(3, 4)) {
		t.Errorf("the completion undid chmod or utimens: %v, %v", st.Mode(), st.ModTime())
	}
}

// TestNobodyWaitsForAFrozenUpper is about copy_file_range: source and target are on one
// filesystem, which is frozen while it copies.
func TestNobodyWaitsForAFrozenUpper(t *testing.T) {
	const size = 256 << 20
	dir := harness.Filesystem(t, "ext4", 1<<30)
	l := harness.NewLayersOn(t, dir)
	low := filepath.Join(dir, "low")
	harness.Make(t, low, "f small something")
	want := harness.Bytes(size)
	must(t, os.WriteFile(low+"/big", want, 0o644))
	unix.Sync()
	l.Lowers = []string{low}
	for range 10 {
		m := l.Plyfs(t, "--threshold", "off")
		_, err := os.Stat(m.Path("big")) // names are looked up in the upper, and atimes may be written
		must(t, err)
		sameBytes(t, m.Path("small"), []byte("something"))
		w := events(t, m)
		written := make(chan error, 1)
		go func() {
			f, err := os.OpenFile(m.Path("big"), os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt([]byte("!"), size-1)
				f.Close()
			}
			written <- err
		}()
		eventually(t, "the copy begins", func() bool { return stagedBytes(l) > 4<<20 })
		freeze(t, dir, true)
		middle := stagedBytes(l)
		if middle > 0 && middle < size {
			whileCopying(t, m, want)
		}
		freeze(t, dir, false)
		must(t, <-written)
		evs := w.only(t, "/big")
		if len(evs) != 1 || evs[0].Method != cow.MethodCopyRange || evs[0].BytesCopied != size {
			t.Fatalf("events: %+v", evs)
		}
		if middle > 0 && middle < size {
			return
		}
		// It was done before the filesystem was frozen: again.
		must(t, os.Remove(l.Upper+"/big"))
		m.Close(t)
	}
	t.Skip("the copy was always faster than the freeze")
}

// stagedBytes returns the size of what is being copied.
func stagedBytes(l *harness.Layers) int64 {
	ents, _ := os.ReadDir(l.Work + "/work")
	for _, e := range ents {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			return info.Size()
		}
	}
	return 0
}

func freeze(t *testing.T, dir string, on bool) {
	t.Helper()
	arg := "--unfreeze"
	if on {
		arg = "--freeze"
		t.Cleanup(func() { _ = exec.Command("fsfreeze", "--unfreeze", dir).Run() })
	}
	if out, err := exec.Command("fsfreeze", arg, dir).CombinedOutput(); err != nil {
		t.Fatalf("fsfreeze %s: %v\n%s", arg, err, out)
	}
}

// TestInterrupt: a signal to the caller ends a copy-up with EINTR, and nothing has happened.
func TestInterrupt(t *testing.T) {
	const size = 8 << 20
	g := newGate(t, "F big 8M")
	l := g.layers(t)
	m := l.Plyfs(t, "--threshold", "off")
	w := events(t, m)
	caught := make(chan os.Signal, 8)
	signal.Notify(caught, unix.SIGUSR1)
	defer signal.Stop(caught)
	g.openFrom(size/2, 0)
	thread, result := make(chan int, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		fd, err := unix.Open(m.Path("big"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		thread <- unix.Gettid()
		if err == nil {
			_, err = unix.Pwrite(fd, []byte("!"), 5)
			unix.Close(fd)
		}
		result <- err
	}()
	tid := <-thread
	g.awaitHeld()
	must(t, unix.Tgkill(os.Getpid(), tid, unix.SIGUSR1))
	// The handler runs after the call. The daemon looks at the signal between two reads.
	eventually(t, "the daemon hears of the signal", func() bool { return m.Stat(t).Requests["INTERRUPT"] > 0 })
	for err := error(nil); err == nil; {
		g.openFrom(size/2, 1)
		select {
		case err = <-result:
			if err != unix.EINTR {
				t.Fatalf("write: %v", err)
			}
		case <-time.After(10 * time.Millisecond):
		}
	}
	g.open(-1)
	if _, err := os.Stat(l.Upper + "/big"); err == nil {
		t.Error("the file is in the upper")
	}
	if n := stagedBytes(l); n > 0 {
		t.Errorf("%d bytes stayed in the work directory", n)
	}
	if evs := w.only(t, "/big"); len(evs) != 1 || evs[0].Err != "EINTR" || evs[0].UpperBytes != 0 || evs[0].BytesCopied >= size {
		t.Errorf("events: %+v", evs)
	}
	sameBytes(t, m.Path("big"), harness.Bytes(size))
	want := writeAt(t, m.Path("big"), harness.Bytes(size), "again", 5)
	sameBytes(t, m.Path("big"), want)
}

// gatedUnion returns a union without a mount, over a lower of one file, big, of size bytes, that is copied
// whole and read through a gate; and the node of the file.
func gatedUnion(t *testing.T, size string) (*gate, *harness.Layers, *overlay.FS, *overlay.Node) {
	t.Helper()
	g := newGate(t, "F big "+size)
	l := g.layers(t)
	cfg := overlay.DefaultConfig()
	cfg.Lowers, cfg.Upper, cfg.Work, cfg.Threshold = []string{g.dir}, l.Upper, l.Work, -1
	cfg.Log = t.Logf
	u, err := overlay.New(cfg)
	must(t, err)
	t.Cleanup(func() { must(t, u.Close()) })
	var a overlay.Attr
	n, err := u.Lookup(&overlay.Caller{}, u.Root(), "big", &a)
	must(t, err)
	return g, l, u, n
}

// TestWritersShareACopy asks the union itself: the kernel orders the writers of one file.
func TestWritersShareACopy(t *testing.T) {
	const size = 4 << 20
	g, l, u, n := gatedUnion(t, "4M")
	cursor := u.Bus().Cursor()
	g.openFrom(size/2, 0)
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			_, err := u.WriteAt(&overlay.Caller{PID: uint32(i + 1)}, n, []byte{byte('a' + i)}, int64(i), false)
			if err != nil {
				t.Error(err)
			}
		})
	}
	g.awaitHeld()
	cancel := make(chan struct{})
	close(cancel)
	if _, err := u.WriteAt(&overlay.Caller{Cancel: cancel}, n, []byte("x"), 9, false); overlay.Errno(err) != unix.EINTR {
		t.Errorf("a writer that was interrupted while it waited: %v", err)
	}
	g.open(-1)
	writers.Wait()
	if evs := u.Bus().Since(cursor); len(evs) != 1 || evs[0].BytesCopied != size {
		t.Errorf("events: %+v", evs)
	}
	sameBytes(t, l.Upper+"/big", put(harness.Bytes(size), []byte("abcd"), 0))
	u.Forget(n.ID(), 1)
}

// TestWaitingIsCounted: who waited for a copy-up that was interrupted does it, and says how long it waited.
func TestWaitingIsCounted(t *testing.T) {
	const size = 4 << 20
	g, l, u, n := gatedUnion(t, "4M")
	cursor := u.Bus().Cursor()
	defer u.Forget(n.ID(), 1)
	g.openFrom(size/2, 0)
	cancel := make(chan struct{})
	var writers sync.WaitGroup
	writers.Go(func() {
		if _, err := u.WriteAt(&overlay.Caller{Cancel: cancel}, n, []byte("a"), 0, false); overlay.Errno(err) != unix.EINTR {
			t.Errorf("interrupted: %v", err)
		}
	})
	g.awaitHeld()
	began := make(chan struct{})
	writers.Go(func() {
		close(began)
		if _, err := u.WriteAt(&overlay.Caller{PID: 7}, n, []byte("b"), 1, false); err != nil {
			t.Error(err)
		}
	})
	<-began
	time.Sleep(20 * time.Millisecond) // so that it finds somebody at it
	close(cancel)
	g.open(-1)
	writers.Wait()
	evs := u.Bus().Since(cursor)
	if len(evs) != 2 || evs[0].Err != "EINTR" || evs[1].Err != "" || evs[1].Wait <= 0 || evs[1].PID != 7 {
		t.Errorf("events: %+v", evs)
	}
	sums := u.Bus().Sums().Total
	if len(evs) == 2 && (sums.Failed != 1 || sums.Wait != evs[0].Wait+evs[1].Wait) {
		t.Errorf("sums: %+v", sums)
	}
	sameBytes(t, l.Upper+"/big", put(harness.Bytes(size), []byte("b"), 1))
}
