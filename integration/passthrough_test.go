package integration

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// TestPassthroughHandOver: a lower file is open, so that the kernel reads it by itself, and is
// changed. Whoever opens it from then on sees the change.
func TestPassthroughHandOver(t *testing.T) {
	harness.NeedRoot(t)
	for _, tc := range []struct {
		name, want string
		change     func(path string) error
	}{
		{"write", "NEWtents", func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString("NEW")
			return err
		}},
		{"truncate", "con", func(path string) error { return os.Truncate(path, 3) }},
		{"chmod and truncate", "", func(path string) error {
			if err := os.Chmod(path, 0o600); err != nil {
				return err
			}
			return os.Truncate(path, 0)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := harness.NewLayers(t, "f dir/file contents").Plyfs(t, "--mode", "passthrough")
			path := m.Path("dir/file")
			var before, after unix.Stat_t
			old, err := os.Open(path)
			do(t, err)
			defer old.Close()
			b := make([]byte, 8)
			_, err = old.ReadAt(b, 0)
			do(t, err)
			do(t, unix.Stat(path, &before))
			do(t, tc.change(path))
			got, err := os.ReadFile(path)
			if err != nil || string(got) != tc.want {
				t.Errorf("a new open reads %q, %v; want %q", got, err, tc.want)
			}
			do(t, unix.Stat(path, &after))
			if before.Ino != after.Ino {
				t.Errorf("inode number %d became %d", before.Ino, after.Ino)
			}
		})
	}
}
