package overlay

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/plyfs/plyfs/layer/layertest"
)

// While a directory is being removed nobody closes what was removed from it: rmdir(2) would wait for that at
// the cost of the processor.
func TestRemovedFileStaysWhileItsDirectoryIsRemoved(t *testing.T) {
	w := newCrowd(t, func(*Config) {})
	defer w.close()
	var a Attr
	d, err := w.fs.Mkdir(nil, w.fs.root, "new", 0o755, &a)
	if err != nil {
		t.Fatal(err)
	}
	n, err := w.fs.Mknod(nil, d, "file", 0o100644, 0, &a)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.fs.Unlink(nil, d, "file"); err != nil {
		t.Fatal(err)
	}
	kept := func() bool {
		return slices.Contains(layertest.OpenBelow(t, w.cfg.Upper), filepath.Join(w.cfg.Upper, "new/file (deleted)"))
	}
	if !kept() {
		t.Fatal("a removed file that is known to somebody is not kept open")
	}
	forgotten := make(chan struct{})
	err = w.fs.removing(d, func() error {
		go func() {
			defer close(forgotten)
			w.fs.Forget(n.ID(), 1)
		}()
		select {
		case <-forgotten:
		case <-time.After(50 * time.Millisecond):
		}
		if !kept() {
			t.Error("a file is closed in the middle of the removal of its directory")
		}
		return nil
	})
	<-forgotten
	if err != nil {
		t.Error(err)
	}
	if kept() {
		t.Error("a removed and forgotten file is kept open")
	}
}
