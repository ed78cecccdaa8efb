package copyup

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/integration/harness"
)

// Whoever makes a layer makes a file of holes as long as the filesystem likes, for nothing: what the daemon remembers of
// an unfinished file must not grow with its length without end.
func TestHugeHole(t *testing.T) {
	harness.NeedRoot(t) // for a tmpfs, which has the longest files, and the mark
	const size = 9_000_000_000_000_000_000
	disk := harness.Dir(t)
	must(t, unix.Mount("tmpfs", disk, "tmpfs", 0, ""))
	l := harness.NewLayersOn(t, disk)
	l.Lowers = []string{disk + "/lower"}
	must(t, os.Mkdir(l.Lowers[0], 0o755))
	for _, name := range []string{"written", "chmodded"} {
		path := l.Lowers[0] + "/" + name
		must(t, os.WriteFile(path, []byte("begin"), 0o644))
		must(t, unix.Truncate(path, size))
	}
	// A record that says so, in an upper from elsewhere.
	record := cow.Record{Layer: l.Lowers[0], Path: "written", Size: size, Valid: size}
	for name, size := range map[string]int64{"recorded": size, "cut": 1 << 20} {
		path := l.Upper + "/" + name
		must(t, os.WriteFile(path, nil, 0o644))
		must(t, unix.Truncate(path, size))
		must(t, unix.Setxattr(path, harness.Mark(cow.RecordKey), record.Encode(), 0))
	}
	incompat := l.Work + "/work/incompat/plyfs-partial"
	must(t, os.MkdirAll(incompat, 0o700))

	m := l.Plyfs(t, manual...)
	must(t, unix.Chmod(m.Path("chmodded"), 0o600))
	w, err := os.OpenFile(m.Path("written"), os.O_WRONLY, 0)
	must(t, err)
	_, err = w.WriteAt([]byte("!"), 1<<40)
	must(t, errors.Join(err, w.Close()))
	for name, want := range map[string]string{"chmodded": "begin\x00", "written": "begin\x00"} {
		f, err := os.Open(m.Path(name))
		must(t, err)
		got := make([]byte, len(want))
		_, err = f.ReadAt(got, 0)
		st, statErr := f.Stat()
		must(t, errors.Join(err, statErr, f.Close()))
		if string(got) != want || st.Size() != size {
			t.Errorf("%s: %q, %d bytes", name, got, st.Size())
		}
	}
	f, err := os.Open(m.Path("recorded"))
	must(t, err)
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, unix.EIO) {
		t.Errorf("a record of a file of %d bytes: %v", int64(size), err)
	}
	must(t, f.Close())
	if b, err := os.ReadFile(m.Path("cut")); !errors.Is(err, unix.EIO) { // it is not the recorded file
		t.Errorf("a file that was cut behind our back: %d bytes, %v", len(b), err)
	}
	if !harness.Alive(m.PID()) {
		t.Fatal("the daemon is dead")
	}
}
