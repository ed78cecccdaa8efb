package integration

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// TestNoRoomForAnOwner: what is made belongs to whoever made it, or is not made. With xattr_permissions the owner comes
// in a second step, for which the disk may have no room.
func TestNoRoomForAnOwner(t *testing.T) {
	harness.NeedRoot(t)
	disk := harness.Dir(t)
	// In a tmpfs an inode takes 1024 bytes of a fixed sum, and an attribute what it has.
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "nr_inodes=200"); err != nil {
		t.Fatal(err)
	}
	l := harness.NewLayersOn(t, disk, "f gone 1\nf gonedir 1\nd d\nf d/x 1")
	m := l.Plyfs(t, "-o", "xattr_permissions=2")
	for _, name := range []string{"gone", "gonedir"} {
		if err := os.Remove(m.Path(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(m.Path("d/y"), nil, 0o644); err != nil { // d is in the upper
		t.Fatal(err)
	}
	full, spare := filepath.Join(disk, "full"), filepath.Join(disk, "spare")
	for _, name := range []string{full, spare} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for n, size := 0, 1<<14; size > 0; n++ {
		err := unix.Setxattr(full, "user."+strings.Repeat("x", n%8+1)+string(rune('a'+n/8)), make([]byte, size), 0)
		if errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Skipf("no attributes on a tmpfs here: %v", err)
		}
	}
	if err := os.Remove(spare); err != nil { // room for one inode, and none for its attribute
		t.Fatal(err)
	}
	before := harness.Dump(t, m.Dir, false)
	for _, name := range []string{"new", "gone", "d/new"} {
		if err := os.WriteFile(m.Path(name), nil, 0o644); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"newdir", "gonedir", "d/newdir"} {
		if err := os.Mkdir(m.Path(name), 0o755); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m.Close(t)
	// Nor is it a reason to take the upper for one that has no marks.
	out, err := harness.Run("mount", "--lower", l.Lowers[0], "--upper", l.Upper, "--work", l.Work, l.Mnt)
	if harness.ExitCode(err) != 1 || !strings.Contains(out, "no space left on device") || strings.Count(out, "\n") != 1 {
		t.Errorf("mounted on a full disk: %v, %q", err, out)
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	if after := harness.Dump(t, l.Plyfs(t, "-o", "xattr_permissions=2").Dir, false); strings.Join(after, "\n") != strings.Join(before, "\n") {
		t.Errorf("before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}
