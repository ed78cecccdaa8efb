package copyup

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/integration/harness"
)

const patience = time.Minute

// eventually waits until f says true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("in vain: ", what)
		}
	}
}

func TestUnmountCompletes(t *testing.T) {
	l := harness.NewLayers(t, "F big 3M \n F small 10k \n F other 1M")
	m := l.Plyfs(t, "--settle-budget", "off")
	want := writeAt(t, m.Path("big"), harness.Bytes(3<<20), "!", 1<<20)
	writeAt(t, m.Path("small"), make([]byte, 10<<10), "!", 1)
	must(t, os.Chmod(m.Path("other"), 0o600))
	if n := len(unfinished(t, l.Upper)); n != 3 {
		t.Errorf("%d unfinished files, want 3", n)
	}
	m.Close(t)
	if left := unfinished(t, l.Upper); len(left) > 0 || marked(l) {
		t.Errorf("unfinished: %v, marked: %v", left, marked(l))
	}
	sameBytes(t, l.Upper+"/big", want)
	k := l.Kernel(t)
	sameBytes(t, k.Path("big"), want)
	sameBytes(t, k.Path("other"), harness.Bytes(1<<20))
}

func TestNoSettle(t *testing.T) {
	l := harness.NewLayers(t, "F big 3M")
	m := l.Plyfs(t, manual...)
	want := writeAt(t, m.Path("big"), harness.Bytes(3<<20), "!", 1<<20)
	m.Close(t)
	if left := unfinished(t, l.Upper); len(left) != 1 {
		t.Errorf("unfinished: %v", left)
	}
	kernelRefuses(t, l)
	// Mounted again without the flag: completed at the end, found without the list.
	m = l.Plyfs(t, "--settle-budget", "off")
	sameBytes(t, m.Path("big"), want)
	m.Close(t)
	if left := unfinished(t, l.Upper); len(left) > 0 || marked(l) {
		t.Errorf("unfinished: %v, marked: %v", left, marked(l))
	}
	sameBytes(t, l.Upper+"/big", want)
}

// What is unfinished no more when the mount ends needs no mark, however it came to be so.
func TestNoSettleWithoutNeed(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"truncated": func(path string) error { return os.Truncate(path, 0) },
		"removed":   os.Remove,
		"renamed and truncated": func(path string) error {
			if err := os.Rename(path, path+"2"); err != nil {
				return err
			}
			return os.Truncate(path+"2", 0)
		},
		"as it is": func(string) error { return nil },
		"renamed":  func(path string) error { return os.Rename(path, path+"2") },
	} {
		t.Run(name, func(t *testing.T) {
			l := harness.NewLayers(t, "F big 3M\nF other 1M")
			m := l.Plyfs(t, manual...)
			writeAt(t, m.Path("big"), harness.Bytes(3<<20), "!", 1<<20)
			if !marked(l) {
				t.Fatal("not marked")
			}
			must(t, change(m.Path("big")))
			m.Close(t)
			left := len(unfinished(t, l.Upper)) > 0
			if left != (name == "as it is" || name == "renamed") || marked(l) != left {
				t.Errorf("unfinished: %v, marked: %v", left, marked(l))
			}
			// The same of a mark that an earlier mount left.
			m = l.Plyfs(t, manual...)
			for _, p := range []string{"big", "big2"} {
				if err := os.Truncate(m.Path(p), 0); err != nil && !os.IsNotExist(err) {
					t.Error(err)
				}
			}
			m.Close(t)
			if marked(l) {
				t.Error("marked")
			}
		})
	}
}

func TestSettleWithNothingLeft(t *testing.T) {
	l := harness.NewLayers(t, "F big 3M\nF other 1M")
	m := l.Plyfs(t, manual...)
	writeAt(t, m.Path("big"), harness.Bytes(3<<20), "!", 1<<20)
	writeAt(t, m.Path("other"), harness.Bytes(1<<20), "!", 1<<19)
	must(t, os.Remove(m.Path("big")))
	must(t, os.Truncate(m.Path("other"), 0))
	if !marked(l) {
		t.Error("not marked")
	}
	if out, err := harness.Run("settle", m.Dir); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if marked(l) {
		t.Error("marked")
	}
}

func TestIdleWorkerCompletes(t *testing.T) {
	l := harness.NewLayers(t, "F big 3M")
	m := l.Plyfs(t, "--settle-budget", "2M", "--no-settle")
	w := events(t, m)
	want := writeAt(t, m.Path("big"), harness.Bytes(3<<20), "!", 1<<20)
	eventually(t, "the mark goes", func() bool { return !marked(l) })
	sameBytes(t, l.Upper+"/big", want)
	evs := w.only(t, "/big")
	if len(evs) != 2 || evs[1].Cause != cow.CauseComplete || evs[1].BytesCopied == 0 || evs[1].Layer != l.Lowers[0] || evs[1].LayerIndex != 1 {
		t.Errorf("events: %+v", evs)
	}
	m.Close(t)
	k := l.Kernel(t)
	sameBytes(t, k.Path("big"), want)
}

// TestSettleShowsProgress runs plyfs settle on a terminal.
func TestSettleShowsProgress(t *testing.T) {
	g := newGate(t, "F big 8M")
	l := g.layers(t)
	m := l.Plyfs(t, manual...)
	writeAt(t, m.Path("big"), harness.Bytes(8<<20), "!", 1<<20)
	g.open(4)
	terminal, user := openTerminal(t)
	cmd := exec.Command(harness.Binary(), "settle", m.Dir)
	cmd.Stderr = terminal
	must(t, cmd.Start())
	terminal.Close()
	g.awaitHeld()
	stat, err := harness.Run("stat", m.Dir)
	must(t, err)
	if !strings.Contains(stat, "completing") || !strings.Contains(stat, "unfinished") {
		t.Errorf("plyfs stat does not say that files are being completed:\n%s", stat)
	}
	var seen bytes.Buffer
	buf := make([]byte, 4096)
	for !strings.Contains(seen.String(), "% of 8.0 MiB") {
		n, err := user.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			t.Fatalf("%v; the terminal shows %q", err, seen.String())
		}
	}
	g.open(-1)
	must(t, cmd.Wait())
	if left := unfinished(t, l.Upper); len(left) > 0 {
		t.Errorf("unfinished: %v", left)
	}
}

func openTerminal(t *testing.T) (theirs, ours *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { ours.Close() })
	must(t, unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	must(t, err)
	theirs, err = os.OpenFile(filepath.Join("/dev/pts", itoa(n)), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	return theirs, ours
}

func TestCheckListsUnfinished(t *testing.T) {
	l := harness.NewLayers(t, "F dir/big 3M\n F whole 3M")
	m := l.Plyfs(t, manual...)
	writeAt(t, m.Path("dir/big"), make([]byte, 3<<20), "!", 1<<20)
	look := func(when string, args ...string) {
		out, err := harness.Run(append([]string{"check"}, args...)...)
		if err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if !strings.Contains(out, "dir/big: unfinished") || strings.Contains(out, "whole: unfinished") {
			t.Errorf("%s: plyfs check prints:\n%s", when, out)
		}
	}
	look("mounted", m.Dir)
	m.Close(t)
	look("not mounted", l.Upper)
	if out, _ := harness.Run("check", "--work", l.Work, l.Upper); !strings.Contains(out, "plyfs-partial") {
		t.Errorf("plyfs check --work prints:\n%s", out)
	}
}

// ending unmounts a stack over a gate while it has an unfinished file, and returns
// when the daemon waits for the gate in the middle of completing it.
func ending(t *testing.T, g *gate, l *harness.Layers) (daemon int, want []byte) {
	t.Helper()
	m := l.Plyfs(t, "--settle-budget", "off")
	want = writeAt(t, m.Path("big"), harness.Bytes(8<<20), "!", 1<<20)
	daemon = m.PID()
	g.open(4)
	must(t, unix.Unmount(m.Dir, 0))
	g.awaitHeld()
	return daemon, want
}

// TestMountAfterUnmount: a mount while the daemon of the last one completes files takes
// over.
func TestMountAfterUnmount(t *testing.T) {
	g := newGate(t, "F big 8M")
	l := g.layers(t)
	daemon, want := ending(t, g, l)
	mounted := make(chan error, 1)
	go func() {
		out, err := harness.Run("mount", "--lower", g.dir, "--upper", l.Upper, "--work", l.Work, "--settle-budget", "off", "--no-settle", l.Mnt)
		if err != nil {
			err = errors.New(out)
		}
		mounted <- err
	}()
	eventually(t, "the new mount asks", func() bool {
		_, err := os.Stat(l.Work + "/work/#takeover")
		return err == nil
	})
	if !harness.Alive(daemon) {
		t.Fatal("the first daemon did not wait for the gate")
	}
	time.Sleep(200 * time.Millisecond) // it looks for that every 20 ms, and the rest may take less
	g.open(-1)
	must(t, <-mounted)
	if n := len(unfinished(t, l.Upper)); n != 1 {
		t.Errorf("%d unfinished files: the first daemon went on", n)
	}
	eventually(t, "the first daemon ends", func() bool { return !harness.Alive(daemon) })
	for _, mark := range []string{"#takeover", "#settling"} {
		if _, err := os.Stat(l.Work + "/work/" + mark); err == nil {
			t.Errorf("%s stayed", mark)
		}
	}
	sameBytes(t, l.Mnt+"/big", want)
	if out, err := harness.Run("umount", l.Mnt); err != nil {
		t.Error(out)
	}
}

// TestRemovedAfterUnmount removes the upper, or all of it, while files are completed: the
// daemon ends without a word.
func TestRemovedAfterUnmount(t *testing.T) {
	for _, what := range []string{"upper", "work", "both"} {
		t.Run(what, func(t *testing.T) {
			g := newGate(t, "F big 8M")
			l := g.layers(t)
			daemon, _ := ending(t, g, l)
			if what != "work" {
				must(t, os.RemoveAll(l.Upper))
			}
			if what != "upper" {
				must(t, os.RemoveAll(l.Work))
			}
			g.open(-1)
			eventually(t, "the daemon ends", func() bool { return !harness.Alive(daemon) })
			if log, err := os.ReadFile(l.Root + "/log"); err != nil || len(log) > 0 {
				t.Errorf("the log says (%v):\n%s", err, log)
			}
		})
	}
}

// TestRemountAtOnce mounts again as soon as umount(2) returns: the last daemon may still hold
// the layers.
func TestRemountAtOnce(t *testing.T) {
	l := harness.NewLayers(t, "f a 1")
	for range 20 {
		m := l.Plyfs(t)
		must(t, os.WriteFile(m.Path("b"), []byte("2"), 0o644))
		must(t, unix.Unmount(m.Dir, 0))
	}
}
