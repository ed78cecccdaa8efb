package graft

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// twoMounts returns two mounts of one image that share a directory at /data, and that directory.
func twoMounts(t *testing.T) (a, b *harness.Mount, src string) {
	t.Helper()
	one, two := harness.NewLayers(t, graftImage), harness.NewLayers(t, graftImage)
	src = source(t, one, "volume", "f file 0123456789")
	return one.Plyfs(t, "--bind", src+":/data"), two.Plyfs(t, "--bind", src+":/data"), src
}

func open(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestSharedWritesAppendsRenames(t *testing.T) {
	a, b, _ := twoMounts(t)
	view := [2]string{a.Path("data/"), b.Path("data/")}
	for i, text := range []string{"one", "two", "six"} {
		write(t, view[i%2]+"/file", text)
		if got := read(t, view[(i+1)%2]+"/file"); got != text {
			t.Errorf("%q, want %q", got, text)
		}
	}
	if err := os.Rename(view[0]+"/file", view[0]+"/moved"); err != nil {
		t.Error(err)
	}
	if got := names(t, view[1]) + read(t, view[1]+"/moved"); got != "movedsix" {
		t.Errorf("%q", got)
	}
	// Lines appended from both sides at the same time: none is lost, none is torn.
	const lines = 200
	var wg sync.WaitGroup
	for i := range view {
		wg.Go(func() {
			f, err := os.OpenFile(view[i]+"/log", os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			for n := range lines {
				if _, err := fmt.Fprintf(f, "mount %d line %d\n", i, n); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := map[string]bool{}
	for line := range strings.Lines(read(t, view[0]+"/log")) {
		got[line] = true
	}
	for i := range view {
		for n := range lines {
			if !got[fmt.Sprintf("mount %d line %d\n", i, n)] {
				t.Fatalf("line %d of mount %d is lost", n, i)
			}
		}
	}
}

func TestSharedFlock(t *testing.T) {
	a, b, src := twoMounts(t)
	fa, fb, host := open(t, a.Path("data/file"), os.O_RDWR), open(t, b.Path("data/file"), os.O_RDONLY), open(t, src+"/file", os.O_RDONLY)
	if err := unix.Flock(int(fa.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	is(t, "the other mount", unix.Flock(int(fb.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EAGAIN)
	is(t, "the host", unix.Flock(int(host.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EAGAIN)
	again := open(t, a.Path("data/file"), os.O_RDWR)
	is(t, "the same mount", unix.Flock(int(again.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EAGAIN)
	got := make(chan error, 1)
	go func() { got <- unix.Flock(int(fb.Fd()), unix.LOCK_EX) }()
	select {
	case err := <-got:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	fa.Close() // releases
	if err := <-got; err != nil {
		t.Error(err)
	}
	// Whoever closes and tries again at once finds it free.
	for range 50 {
		f := open(t, a.Path("etc/hosts"), os.O_RDWR)
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Fatalf("a file of the overlay, free again: %v", err)
		}
		f.Close()
	}
}

func posixLock(f *os.File, cmd int, typ int16, start, length int64) (unix.Flock_t, error) {
	lk := unix.Flock_t{Type: typ, Start: start, Len: length}
	err := unix.FcntlFlock(f.Fd(), cmd, &lk)
	return lk, err
}

func TestSharedPOSIXLocks(t *testing.T) {
	a, b, src := twoMounts(t)
	fa, fb, host := open(t, a.Path("data/file"), os.O_RDWR), open(t, b.Path("data/file"), os.O_RDWR), open(t, src+"/file", os.O_RDWR)
	if _, err := posixLock(fa, unix.F_SETLK, unix.F_WRLCK, 2, 3); err != nil {
		t.Fatal(err)
	}
	_, err := posixLock(fb, unix.F_SETLK, unix.F_RDLCK, 4, 1)
	is(t, "the other mount", err, unix.EAGAIN)
	_, err = posixLock(host, unix.F_SETLK, unix.F_WRLCK, 0, 0)
	is(t, "the host", err, unix.EAGAIN)
	if _, err := posixLock(fb, unix.F_SETLK, unix.F_WRLCK, 5, 0); err != nil {
		t.Errorf("another range: %v", err)
	}
	if lk, err := posixLock(host, unix.F_GETLK, unix.F_RDLCK, 0, 4); err != nil || lk.Type != unix.F_WRLCK || lk.Start != 2 || lk.Len != 3 {
		t.Errorf("F_GETLK on the host: %+v, %v", lk, err)
	}
	if lk, err := posixLock(fb, unix.F_GETLK, unix.F_RDLCK, 0, 4); err != nil || lk.Type != unix.F_WRLCK || lk.Start != 2 || lk.Len != 3 {
		t.Errorf("F_GETLK in the other mount: %+v, %v", lk, err)
	}
	// A process that closes any descriptor of the file loses its locks.
	open(t, a.Path("data/file"), os.O_RDONLY).Close()
	if _, err := posixLock(fb, unix.F_SETLK, unix.F_WRLCK, 0, 0); err != nil {
		t.Errorf("after the close: %v", err)
	}
	// Somebody of the host holds it: who waits here gets it when it is let go.
	if _, err := posixLock(fb, unix.F_SETLK, unix.F_UNLCK, 0, 0); err != nil {
		t.Error(err)
	}
	if _, err := posixLock(host, unix.F_OFD_SETLK, unix.F_WRLCK, 0, 0); err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		_, err := posixLock(fa, unix.F_SETLKW, unix.F_WRLCK, 0, 0)
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	host.Close()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// Waiting for a lock ends with a signal, and many who wait keep nobody from working.
func TestSharedLockWaitIsInterrupted(t *testing.T) {
	a, _, src := twoMounts(t)
	host := open(t, src+"/file", os.O_RDWR)
	if err := unix.Flock(int(host.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	var waiting []*exec.Cmd
	for range 40 {
		cmd := exec.Command("flock", a.Path("data/file"), "true")
		if err := cmd.Start(); err != nil {
			t.Skip(err)
		}
		waiting = append(waiting, cmd)
	}
	write(t, a.Path("data/other"), "works")
	if got := read(t, a.Path("data/other")); got != "works" {
		t.Errorf("%q", got)
	}
	for _, cmd := range waiting {
		_ = cmd.Process.Signal(unix.SIGTERM)
	}
	for _, cmd := range waiting {
		if err := cmd.Wait(); err == nil {
			t.Error("got the lock that somebody holds")
		}
	}
	if n := a.Stat(t).Requests["SETLKW"]; n == 0 {
		t.Error("no lock was asked for")
	}
}

// With privileges the kernel does the I/O on the host's file: mappings are coherent too.
func TestSharedMappingIsCoherent(t *testing.T) {
	harness.NeedRoot(t)
	a, b, src := twoMounts(t)
	page := func(path string) []byte {
		f := open(t, path, os.O_RDWR)
		m, err := unix.Mmap(int(f.Fd()), 0, 10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Munmap(m) })
		return m
	}
	ma, mb := page(a.Path("data/file")), page(b.Path("data/file"))
	copy(ma, "ab")
	if !bytes.HasPrefix(mb, []byte("ab2345")) {
		t.Errorf("the other mount's mapping has %q", mb)
	}
	if got := read(t, src+"/file"); got != "ab23456789" {
		t.Errorf("the host reads %q", got)
	}
	f := open(t, src+"/file", os.O_WRONLY)
	if _, err := f.WriteAt([]byte("xy"), 4); err != nil {
		t.Error(err)
	}
	if string(ma) != "ab23xy6789" {
		t.Errorf("the mapping has %q after the host's write", ma)
	}
}

func TestSharedSQLiteReal(t *testing.T) {
	if os.Getenv("PLYFS_REAL") != "1" {
		t.Skip("PLYFS_REAL=1 runs it")
	}
	sqlite, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Skip(err)
	}
	for _, journal := range []string{"delete", "wal"} {
		t.Run(journal, func(t *testing.T) { sqliteTorture(t, sqlite, journal) })
	}
}

// sqliteTorture counts up in one database from two mounts and the host at the same time: each
// transaction reads and writes, so that one lost update or one lock too few shows in the sum.
func sqliteTorture(t *testing.T, sqlite, journal string) {
	a, b, src := twoMounts(t)
	const workers, rounds = 2, 40
	run := func(db, sql string) (string, error) {
		out, err := exec.Command(sqlite, "-cmd", ".timeout 60000", db, sql).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if out, err := run(src+"/db", "PRAGMA journal_mode="+journal+"; CREATE TABLE t(n INTEGER); INSERT INTO t VALUES(0); CREATE TABLE log(who TEXT, n INTEGER);"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var wg sync.WaitGroup
	places := []string{a.Path("data/db"), b.Path("data/db"), src + "/db"}
	for i, db := range places {
		for w := range workers {
			wg.Go(func() {
				for n := range rounds {
					sql := fmt.Sprintf("BEGIN IMMEDIATE; UPDATE t SET n = n + 1; INSERT INTO log VALUES('%d/%d', %d); COMMIT;", i, w, n)
					if out, err := run(db, sql); err != nil {
						t.Errorf("%s: %v: %s", db, err, out)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	want := fmt.Sprintf("%d|%d", len(places)*workers*rounds, len(places)*workers*rounds)
	for _, db := range places {
		if got, err := run(db, "SELECT n, (SELECT count(*) FROM log) FROM t"); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", db, got, err, want)
		}
		if got, err := run(db, "PRAGMA integrity_check"); err != nil || got != "ok" {
			t.Errorf("%s: %s, %v", db, got, err)
		}
	}
}
