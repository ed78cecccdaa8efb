package copyup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// TestSettleOfWhatOnlyTheIndexHas: the name of a hard link that was written to is gone, the file is not, and
// nothing but the index has it.
func TestSettleOfWhatOnlyTheIndexHas(t *testing.T) {
	for _, how := range []string{"unmount", "settle"} {
		t.Run(how, func(t *testing.T) {
			l := harness.NewLayers(t, "F a 300k\nh b a")
			m := l.Plyfs(t, manual...)
			want := writeAt(t, m.Path("a"), harness.Bytes(300<<10), "x", 100_000)
			must(t, os.Remove(m.Path("a")))
			m.Close(t)
			if in, up := unfinished(t, l.Work+"/index"), unfinished(t, l.Upper); len(in) != 1 || len(up) != 0 || !marked(l) {
				t.Fatalf("unfinished: %q in the index, %q in the upper; marked: %v", in, up, marked(l))
			}
			m = l.Plyfs(t, "--settle-budget", "off")
			sameBytes(t, m.Path("b"), want)
			if how == "settle" {
				settle(t, m)
				if marked(l) {
					t.Error("the mark stayed")
				}
			}
			m.Close(t)
			if left := unfinished(t, l.Work+"/index"); len(left) > 0 || marked(l) {
				t.Errorf("unfinished: %v, marked: %v", left, marked(l))
			}
			sameBytes(t, l.Kernel(t).Path("b"), want) // with no option, and so no index
		})
	}
}

// TestRenameWhileSettleWalks: a settle that reads the whole upper passes by what is moved out of its way; then the mark
// stays for the next one.
func TestRenameWhileSettleWalks(t *testing.T) {
	tree := ""
	for i := range 8 {
		tree += "F d" + itoa(i) + "/f 1M\n"
	}
	g := newGate(t, tree)
	l := g.layers(t)
	m := l.Plyfs(t, manual...)
	want := harness.Bytes(1 << 20)
	for i := range 8 {
		want = writeAt(t, m.Path("d"+itoa(i)+"/f"), want, "x", 8192)
	}
	m.Kill(t) // where the files are is not known any more
	m = l.Plyfs(t, manual...)
	g.open(0)
	done := make(chan error, 1)
	go func() { _, err := harness.Run("settle", m.Dir); done <- err }()
	g.awaitHeld()
	for i := range 8 {
		must(t, os.Rename(m.Path("d"+itoa(i)), m.Path("e"+itoa(i))))
	}
	g.open(-1)
	must(t, <-done)
	left := unfinished(t, l.Upper)
	if len(left) == 0 {
		t.Error("the settle missed nothing: the test shows nothing")
	}
	if !marked(l) {
		t.Errorf("without a mark unfinished: %q", left)
	}
	statKnows(t, l, m, len(left) > 0)
	settle(t, m)
	if left := unfinished(t, l.Upper); len(left) > 0 || marked(l) {
		t.Errorf("unfinished: %v, marked: %v", left, marked(l))
	}
	for i := range 8 {
		sameBytes(t, l.Upper+"/e"+itoa(i)+"/f", want)
	}
}

// statKnows: plyfs stat tells of unfinished files.
func statKnows(t *testing.T, l *harness.Layers, m *harness.Mount, unfinished bool) {
	t.Helper()
	if n := m.Stat(t).Union.Core.Unfinished; (n > 0) != (unfinished || marked(l)) {
		t.Errorf("plyfs stat says %d unfinished", n)
	}
}

// TestUnlinkedWhileOpenAtUnmount: nobody needs the rest of a file that is gone; it is no obstacle, and not
// completed.
func TestUnlinkedWhileOpenAtUnmount(t *testing.T) {
	l := harness.NewLayers(t, "F big 3M\nF other 3M")
	m := l.Plyfs(t, "--settle-budget", "off")
	f, err := os.OpenFile(m.Path("big"), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("x"), 8193)
	must(t, err)
	want := writeAt(t, m.Path("other"), harness.Bytes(3<<20), "x", 8193)
	must(t, os.Remove(m.Path("big")))
	pid := m.PID()
	must(t, unix.Unmount(m.Dir, unix.MNT_DETACH))
	_, err = f.WriteAt([]byte("y"), 1<<20)
	must(t, err)
	b := make([]byte, 3<<20)
	_, err = f.ReadAt(b, 0)
	must(t, err)
	same(t, "read after the unmount", b, put(put(harness.Bytes(3<<20), []byte("x"), 8193), []byte("y"), 1<<20))
	must(t, f.Close())
	eventually(t, "the daemon ends", func() bool { return !harness.Alive(pid) })
	if left := unfinished(t, l.Upper); len(left) > 0 || marked(l) {
		t.Errorf("unfinished: %v, marked: %v", left, marked(l))
	}
	if log, err := os.ReadFile(l.Root + "/log"); err != nil || len(log) > 0 {
		t.Errorf("the log says (%v):\n%s", err, log)
	}
	k := l.Kernel(t)
	sameBytes(t, k.Path("other"), want)
	if _, err := os.Stat(k.Path("big")); !os.IsNotExist(err) {
		t.Errorf("the removed file: %v", err)
	}
}

// TestLinksWhereFilesystemsHaveNoUUID: neither the upper's nor the lower's filesystem has one, and all the same
// an origin can only be in the lower.
func TestLinksWhereFilesystemsHaveNoUUID(t *testing.T) {
	harness.NeedRoot(t)
	root := harness.Dir(t)
	mount := func(name string) string {
		img, dir := filepath.Join(root, name+".img"), filepath.Join(root, name)
		must(t, os.WriteFile(img, nil, 0o600))
		must(t, os.Truncate(img, 64<<20))
		must(t, os.Mkdir(dir, 0o755))
		for _, args := range [][]string{{"mkfs.ext4", "-q", "-F", "-U", "clear", img}, {"mount", "-o", "loop", img, dir}} {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", args, err, out)
			}
		}
		return dir
	}
	low := mount("low")
	harness.Make(t, low, "f a one\nh b a\nf c two")
	l := harness.NewLayersOn(t, mount("up"))
	l.Lowers = []string{low}
	m := l.Plyfs(t)
	must(t, os.Remove(m.Path("a")))
	must(t, os.Chmod(m.Path("c"), 0o600))
	look := func(m *harness.Mount) (links, ino uint64) {
		var st unix.Stat_t
		must(t, unix.Stat(m.Path("b"), &st))
		links = st.Nlink
		must(t, unix.Stat(m.Path("c"), &st))
		return links, st.Ino
	}
	links, ino := look(m)
	m.Close(t)
	m = l.Plyfs(t)
	if n, i := look(m); n != links || i != ino || n != 1 {
		t.Errorf("mounted again: %d links, inode %d; before: %d links, inode %d", n, i, links, ino)
	}
}

// TestLayerThatWasNotSettled: of a layer that was an upper, and not settled, the unfinished files are not shown with
// zeros where their data is elsewhere.
func TestLayerThatWasNotSettled(t *testing.T) {
	l := harness.NewLayers(t, "F big 300k\nF other 300k\nf whole x")
	m := l.Plyfs(t, manual...)
	want := writeAt(t, m.Path("big"), harness.Bytes(300<<10), "x", 100_000)
	harness.Make(t, m.Dir, "f new n")
	m.Close(t)
	above := harness.NewLayers(t, "d d")
	above.Lowers = append([]string{l.Upper}, append(above.Lowers, l.Lowers...)...)
	for _, args := range [][]string{nil, {"--read-only"}, {"--mode", "passthrough"}} {
		if len(args) == 2 && !harness.Root() {
			continue // passthrough is root's
		}
		logged := above.Root + "/log"
		m = above.Plyfs(t, append(append([]string{"--log", logged}, args...), manual...)...)
		if b, err := os.ReadFile(m.Path("big")); !errors.Is(err, unix.EIO) {
			t.Errorf("%q: reading it: %d bytes, %v", args, len(b), err)
		}
		sameBytes(t, m.Path("other"), harness.Bytes(300<<10))
		sameBytes(t, m.Path("whole"), []byte("x"))
		sameBytes(t, m.Path("new"), []byte("n"))
		if out, err := harness.Run("explain", m.Path("big")); err != nil || !strings.Contains(out, "was not settled") {
			t.Errorf("explain: %v, %q", err, out)
		}
		m.Close(t)
		log, err := os.ReadFile(logged)
		must(t, err)
		if strings.Count(string(log), "unfinished") != 1 || !strings.Contains(string(log), l.Upper) {
			t.Errorf("%q: the log: %s", args, log)
		}
		must(t, os.Remove(logged))
	}
	l.Plyfs(t).Close(t)
	m = above.Plyfs(t)
	sameBytes(t, m.Path("big"), want)
	m.Close(t)
}

// TestPassthroughReadsWhatHasNoRoom: a file that cannot be completed, for want of room, is read without passthrough.
func TestPassthroughReadsWhatHasNoRoom(t *testing.T) {
	l := harness.NewLayersOn(t, harness.Filesystem(t, "ext4", 32<<20), "f small x")
	low := filepath.Join(harness.Dir(t), "low")
	must(t, os.Mkdir(low, 0o755))
	harness.Make(t, low, "F big 64M")
	l.Lowers = append(l.Lowers, low)
	m := l.Plyfs(t, manual...)
	want := writeAt(t, m.Path("big"), harness.Bytes(64<<20), "x", 100_000)
	m.Close(t)
	m = l.Plyfs(t, append([]string{"--mode", "passthrough"}, manual...)...)
	sameBytes(t, m.Path("big"), want)
	if f, err := os.OpenFile(m.Path("big"), os.O_WRONLY, 0); !errors.Is(err, unix.ENOSPC) {
		f.Close()
		t.Errorf("opening it for writing after a reader has closed it: %v", err)
	}
	harness.Make(t, m.Dir, "f new n")
	m.Close(t)
}
