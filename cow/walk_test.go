package cow

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// Anybody who may make directories makes them inside each other: what a walk needs for that grows with the
// depth, and not with its square.
func TestWalkOfADeepTree(t *testing.T) {
	const depth = 800 // each keeps a descriptor open, and 1024 is what some systems allow
	name := strings.Repeat("d", 200)
	w := newWorld(t, t.TempDir(), Config{})
	at, err := w.upper.Root.FD()
	must(t, err)
	defer w.upper.Root.Done()
	for i := range depth {
		must(t, layer.Mkdir(at, name, 0o755))
		next, err := layer.Open(at, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		must(t, err)
		if i > 0 {
			unix.Close(at)
		}
		at = next
	}
	must(t, layer.Mknod(at, "file", unix.S_IFREG|0o600, 0))
	unix.Close(at)
	want := strings.Repeat(name+"/", depth) + "file"
	found := 0
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	must(t, w.e.walk(nil, func(_ int, _, path string) error {
		if found++; path != want {
			t.Errorf("a path of %d bytes, want %d", len(path), len(want))
		}
		return nil
	}))
	runtime.ReadMemStats(&after)
	if found != 1 {
		t.Errorf("%d files", found)
	}
	paths := uint64(depth * depth / 2 * len(name))
	if took := after.TotalAlloc - before.TotalAlloc; took > paths/4 {
		t.Errorf("a walk took %d KiB, and all paths together are %d", took>>10, paths>>10)
	} else {
		t.Logf("%d KiB of %d", took>>10, paths>>10)
	}
}
