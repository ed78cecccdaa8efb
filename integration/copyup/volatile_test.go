package copyup

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow/bench/rig"
	"github.com/plyfs/plyfs/integration/harness"
)

// incompat lists what is below work/incompat.
func incompat(t *testing.T, l *harness.Layers) []string {
	t.Helper()
	var out []string
	root := l.Work + "/work/incompat"
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil {
			out = append(out, e.Type().String()+strings.TrimPrefix(path, root))
		}
		return err
	})
	must(t, err)
	return out
}

// TestVolatileMark: both write the same mark, and each refuses the upper that the other left with it.
func TestVolatileMark(t *testing.T) {
	harness.NeedRoot(t)
	theirs := harness.NewLayers(t, "f a 1")
	k := theirs.Kernel(t, "volatile")
	want := incompat(t, theirs)
	k.Close(t)
	if len(want) < 3 {
		t.Fatalf("the kernel's mark: %q", want)
	}
	out, err := harness.Run("mount", "--lower", theirs.Lowers[0], "--upper", theirs.Upper, "--work", theirs.Work, theirs.Mnt)
	if harness.ExitCode(err) != 1 || !strings.Contains(out, theirs.Upper) || !strings.Contains(out, "volatile") {
		t.Errorf("what the kernel left is mounted here: %v, %s", err, out)
	}

	ours := harness.NewLayers(t, "F a 300k")
	m := ours.Plyfs(t, "-o", "volatile", "--settle-budget", "off")
	if got := incompat(t, ours); !slices.Equal(got, want) {
		t.Errorf("the mark is %q, the kernel's %q", got, want)
	}
	written := writeAt(t, m.Path("a"), harness.Bytes(300<<10), "x", 70_000)
	m.Kill(t)
	kernelRefuses(t, ours)
	out, err = harness.Run("check", "--work", ours.Work, ours.Upper)
	if err != nil || !strings.Contains(out, "work/incompat/volatile") || !strings.Contains(out, "a: unfinished") {
		t.Errorf("plyfs check: %v\n%s", err, out)
	}
	// Whoever takes the mark away says that nothing is missing, and nothing is: there was no power cut.
	must(t, os.RemoveAll(ours.Work+"/work/incompat/volatile"))
	m = ours.Plyfs(t, "-o", "volatile", "--settle-budget", "off")
	sameBytes(t, m.Path("a"), written)
	m.Close(t)
	if got := incompat(t, ours); len(got) > 0 {
		t.Errorf("after the unmount: %q", got)
	}
	k = ours.Kernel(t)
	sameBytes(t, k.Path("a"), written)
}

// TestVolatileSyncsNothing counts what the disk is told to make durable.
func TestVolatileSyncsNothing(t *testing.T) {
	harness.NeedRoot(t)
	for _, volatile := range []bool{true, false} {
		im, err := rig.NewImage("ext4", harness.Dir(t), 64<<20)
		must(t, err)
		t.Cleanup(func() {
			if err := im.Close(); err != nil {
				t.Error(err)
			}
		})
		l := harness.NewLayersOn(t, im.Dir, "F big 2M\nF small 3k\nf other x")
		flags := []string{"--settle-budget", "off"}
		if volatile {
			flags = append(flags, "-o", "volatile")
		}
		m := l.Plyfs(t, flags...)
		unix.Sync()
		before, ok := im.Flushes()
		if !ok {
			t.Skip("the number of flushes is not known here")
		}
		writeAt(t, m.Path("big"), make([]byte, 2<<20), "x", 1)
		writeAt(t, m.Path("small"), make([]byte, 3<<10), "x", 1)
		f, err := os.OpenFile(m.Path("small"), os.O_RDWR, 0)
		must(t, err)
		must(t, f.Sync())
		must(t, unix.Fdatasync(int(f.Fd())))
		must(t, unix.Syncfs(int(f.Fd())))
		must(t, f.Close())
		settle(t, m)
		after, _ := im.Flushes()
		if (after == before) != volatile {
			t.Errorf("volatile: %v, flushes: %d", volatile, after-before)
		}
		m.Close(t)
	}
}

// TestManySmallFilesAreSyncedTogether: chown -R of many files tells the disk a few times, and not once for each, to
// make durable what was written; nor does completing them.
func TestManySmallFilesAreSyncedTogether(t *testing.T) {
	harness.NeedRoot(t)
	const files = 600
	im, err := rig.NewImage("ext4", harness.Dir(t), 64<<20)
	must(t, err)
	t.Cleanup(func() {
		if err := im.Close(); err != nil {
			t.Error(err)
		}
	})
	tree := ""
	for i := range files {
		tree += "F d/f" + itoa(i) + " 3k\n"
	}
	l := harness.NewLayersOn(t, im.Dir, tree)
	m := l.Plyfs(t, "--settle-budget", "off")
	unix.Sync()
	before, ok := im.Flushes()
	if !ok {
		t.Skip("the number of flushes is not known here")
	}
	for i := range files {
		must(t, os.Chown(m.Path("d/f"+itoa(i)), 1000, 1000))
	}
	changed, _ := im.Flushes()
	if n := len(unfinished(t, l.Upper)); n != files {
		t.Errorf("%d files wait to be synced, want %d", n, files)
	}
	settle(t, m)
	settled, _ := im.Flushes()
	if changed-before > files/20 || settled-changed > files/20 || settled == before {
		t.Errorf("%d files: %d flushes to change them, %d to complete them", files, changed-before, settled-changed)
	}
	if left := unfinished(t, l.Upper); len(left) > 0 || marked(l) {
		t.Errorf("unfinished: %d, marked: %v", len(left), marked(l))
	}
}
