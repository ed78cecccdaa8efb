package overlay

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A union that was closed keeps nothing open: the filesystems of its layers can be unmounted. What else the process
// has open comes and goes with the collector.
func TestCloseKeepsNothingOpen(t *testing.T) {
	w := newCrowd(t, func(*Config) {})
	layers := filepath.Dir(w.cfg.Upper)
	open := func() (paths []string) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		for _, e := range entries {
			if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, layers) {
				paths = append(paths, to)
			}
		}
		return paths
	}
	w.dump()
	var a Attr
	if n, err := w.fs.Mkdir(nil, w.fs.root, "new", 0o755, &a); err != nil {
		t.Error(err)
	} else if err := w.fs.Rename(nil, w.fs.root, "b", n, "b", 0); err != nil {
		t.Error(err)
	}
	if len(open()) == 0 {
		t.Error("an open union shows no descriptor")
	}
	w.close()
	if left := open(); len(left) > 0 {
		t.Errorf("still open: %q", left)
	}
}
