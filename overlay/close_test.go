package overlay

import (
	"os"
	"testing"
)

// A union that was closed keeps nothing open: the filesystems of its layers can be unmounted.
func TestCloseKeepsNothingOpen(t *testing.T) {
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(entries)
	}
	before := open()
	w := newCrowd(t, func(*Config) {})
	w.dump()
	var a Attr
	if n, err := w.fs.Mkdir(nil, w.fs.root, "new", 0o755, &a); err != nil {
		t.Error(err)
	} else if err := w.fs.Rename(nil, w.fs.root, "b", n, "b", 0); err != nil {
		t.Error(err)
	}
	w.close()
	if after := open(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
