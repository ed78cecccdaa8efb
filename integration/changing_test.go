package integration

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/integration/harness"
)

// In mode shared the lower layers may change underneath, also in what was seen, listed and copied up before.
func TestLowersChangeUnderneath(t *testing.T) {
	l := harness.NewLayers(t, sample...)
	m := l.Plyfs(t, "--mode", "shared", "-o", "timeout=0", "--threshold", "4k")
	if err := errors.Join(
		os.WriteFile(filepath.Join(l.Lowers[1], "large"), harness.Bytes(1<<20), 0o644),
		os.WriteFile(filepath.Join(l.Lowers[1], "attributes"), harness.Bytes(1<<20), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	harness.Dump(t, m.Dir, true)
	f, err := os.OpenFile(m.Path("large"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = f.WriteAt([]byte("new"), 5000)
	if err := errors.Join(err, os.Chmod(m.Path("attributes"), 0o600)); err != nil {
		t.Fatal(err)
	}
	top, bottom := l.Lowers[0], l.Lowers[1]
	for _, name := range []string{"large", "attributes"} {
		// What was copied up shows its number for as long as it is in memory: nobody else may get it.
		h, err := os.Open(filepath.Join(bottom, name))
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
	}
	harness.Make(t, top, `
		f added text
		d opaque/more
		f merged/third 3
		w link`)
	for _, err := range []error{
		os.Remove(filepath.Join(bottom, "a/bottom")),
		os.RemoveAll(filepath.Join(bottom, "large")), // copied up: still in the view
		os.RemoveAll(filepath.Join(bottom, "attributes")),
		os.Rename(filepath.Join(bottom, "opaque/old"), filepath.Join(bottom, "both")),
		os.Remove(filepath.Join(top, "both")),
		os.RemoveAll(filepath.Join(top, "opaque")),
		os.WriteFile(filepath.Join(top, "opaque"), []byte("a file now"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got := harness.Dump(t, m.Dir, true)
	large, err := os.ReadFile(m.Path("large"))
	if want := append(append(harness.Bytes(5000), "new"...), harness.Bytes(1 << 20)[5003:]...); err != nil || string(large) != string(want) {
		t.Errorf("what was copied up is not what was written: %d bytes, %v", len(large), err)
	}
	f.Close()
	m.Close(t)
	if diff := cmp.Diff(harness.Dump(t, l.Kernel(t).Dir, true), got); diff != "" {
		t.Errorf("kernel, mounted afterwards (-), plyfs (+):\n%s", diff)
	}
}
