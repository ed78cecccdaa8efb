package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// Files of an erofs keep their inode numbers when they are copied up, over remounts too, and the names of one file stay
// together in the upper: its handles have the halves of an inode number the other way round.
func TestErofsLower(t *testing.T) {
	harness.NeedRoot(t)
	if _, err := exec.LookPath("mkfs.erofs"); err != nil {
		t.Skip("mkfs.erofs is not installed")
	}
	l := harness.NewLayers(t, "f alone 1\nf first 1\nh second first\nd dir\nh dir/third first")
	image, lower := filepath.Join(l.Root, "image"), filepath.Join(l.Root, "erofs")
	do(t, os.Mkdir(lower, 0o755))
	if out, err := exec.Command("mkfs.erofs", image, l.Lowers[0]).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.erofs: %v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-t", "erofs", "-o", "loop", image, lower).CombinedOutput(); err != nil {
		t.Skipf("this kernel does not mount erofs: %s", out)
	}
	defer func() { _ = unix.Unmount(lower, 0) }()
	l.Lowers[0] = lower
	m := l.Plyfs(t)
	names := []string{"alone", "first", "second", "dir/third"}
	number := func(path string) uint64 {
		var st unix.Stat_t
		do(t, unix.Lstat(path, &st))
		return st.Ino
	}
	was := map[string]uint64{}
	for _, name := range names {
		was[name] = number(m.Path(name))
	}
	for _, name := range names[:2] {
		do(t, os.WriteFile(m.Path(name), []byte("changed"), 0o644))
	}
	m.Close(t)
	for _, name := range names[2:] {
		if got, want := number(l.Upper+"/"+name), number(l.Upper+"/first"); got != want {
			t.Errorf("%s in the upper is %d, and not %d", name, got, want)
		}
	}
	m = l.Plyfs(t)
	defer m.Close(t)
	for _, name := range names {
		if got := number(m.Path(name)); got != was[name] {
			t.Errorf("%s: inode number %d, was %d", name, got, was[name])
		}
	}
}
