package integration

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// An upper that the daemon of an ended mount still completes may become a lower layer at
// once: the new mount waits for it.
func TestLowerThatIsStillCompleted(t *testing.T) {
	l := harness.NewLayers(t, "F big 64M")
	m := l.Plyfs(t)
	f, err := os.OpenFile(m.Path("big"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("x"), 5000); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := unix.Unmount(m.Dir, 0); err != nil { // not plyfs umount, which would wait
		t.Fatal(err)
	}
	next := &harness.Layers{Root: l.Root, Lowers: []string{l.Upper}, Upper: l.Root + "/upper2", Work: l.Root + "/work2", Mnt: l.Root + "/mnt2"}
	for _, d := range []string{next.Upper, next.Work, next.Mnt} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(filepath.Join(l.Lowers[0], "big"))
	if err != nil {
		t.Fatal(err)
	}
	want[5000] = 'x'
	got, err := os.ReadFile(next.Plyfs(t).Path("big"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("differs: %v", err)
	}
}
