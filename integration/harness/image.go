package harness

import (
	"testing"

	"github.com/plyfs/plyfs/cow/bench/rig"
)

// Filesystem mounts a filesystem of its own (ext4, xfs, btrfs: a loop image, as root; or
// tmpfs) of so many bytes, and returns its root. It goes with the test.
func Filesystem(t testing.TB, kind string, size int64) string {
	t.Helper()
	if kind == "tmpfs" {
		Need(t)
	} else {
		NeedRoot(t)
	}
	im, err := rig.NewImage(kind, Dir(t), size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := im.Close(); err != nil {
			t.Error(err)
		}
	})
	return im.Dir
}

// OnFilesystems runs one test on each kind of filesystem, with its root.
func OnFilesystems(t *testing.T, size int64, f func(t *testing.T, dir string)) {
	t.Helper()
	for _, kind := range rig.Filesystems {
		t.Run(kind, func(t *testing.T) { f(t, Filesystem(t, kind, size)) })
	}
}
