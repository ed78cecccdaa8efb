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

// TestPassthroughFlagsOfAnOpenFile: lsattr and chattr through a descriptor of a lower file work on after it was
// copied up.
func TestPassthroughFlagsOfAnOpenFile(t *testing.T) {
	harness.NeedRoot(t)
	const nodump = 0x40 // FS_NODUMP_FL
	for _, mode := range []string{"cached", "passthrough", "shared"} {
		t.Run(mode, func(t *testing.T) {
			m := harness.NewLayers(t, "f file contents").Plyfs(t, "--mode", mode)
			f, err := os.Open(m.Path("file"))
			do(t, err)
			defer f.Close()
			flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
			do(t, err)
			for range 2 {
				do(t, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags|nodump)))
				now, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
				if err != nil || now != flags|nodump {
					t.Errorf("flags %#x, %v; want %#x", now, err, flags|nodump)
				}
			}
		})
	}
}
