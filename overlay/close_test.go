package overlay

import (
	"path/filepath"
	"testing"

	"github.com/plyfs/plyfs/layer/layertest"
)

// A union that was closed keeps nothing open: the filesystems of its layers can be unmounted.
func TestCloseKeepsNothingOpen(t *testing.T) {
	w := newCrowd(t, func(*Config) {})
	layers := filepath.Dir(w.cfg.Upper)
	w.dump()
	var a Attr
	if n, err := w.fs.Mkdir(nil, w.fs.root, "new", 0o755, &a); err != nil {
		t.Error(err)
	} else if err := w.fs.Rename(nil, w.fs.root, "b", n, "b", 0); err != nil {
		t.Error(err)
	}
	if len(layertest.OpenBelow(t, layers)) == 0 {
		t.Error("an open union shows no descriptor")
	}
	w.close()
	if left := layertest.OpenBelow(t, layers); len(left) > 0 {
		t.Errorf("still open: %q", left)
	}
}
