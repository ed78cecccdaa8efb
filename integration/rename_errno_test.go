package integration

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// The kinds of the two names are compared before anything else: a merged directory that cannot
// be renamed at all is still ENOTDIR over a file, as in the kernel.
func TestRenameDirectoryOverFileWithoutRedirects(t *testing.T) {
	lower := "d dir/sub\nf file text\nd other"
	try := func(t *testing.T, m *harness.Mount) {
		for to, want := range map[string]error{"file": unix.ENOTDIR, "other": unix.EXDEV, "new": unix.EXDEV} {
			if err := unix.Rename(m.Path("dir"), m.Path(to)); err != want {
				t.Errorf("to %s: %v, want %v", to, err, want)
			}
		}
		if err := unix.Rename(m.Path("file"), m.Path("dir")); err != unix.EISDIR {
			t.Errorf("a file over a directory: %v", err)
		}
	}
	var options []string
	if harness.Root() {
		options = []string{"redirect_dir=off"} // with userxattr it is, and the kernel takes no word about it
	}
	t.Run("kernel", func(t *testing.T) { try(t, harness.NewLayers(t, lower).Kernel(t, options...)) })
	t.Run("plyfs", func(t *testing.T) { try(t, harness.NewLayers(t, lower).Plyfs(t, "-o", "redirect_dir=off")) })
}
