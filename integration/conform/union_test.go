package conform

import (
	"os"
	"testing"

	"github.com/plyfs/plyfs/integration/harness"
)

// TestRedirectBelowRedirect: a moved directory whose lower half was renamed in a layer between.
func TestRedirectBelowRedirect(t *testing.T) {
	for _, kind := range []string{"kernel", "plyfs"} {
		t.Run(kind, func(t *testing.T) {
			harness.NeedRoot(t)
			l := harness.NewLayers(t, "d x/renamed\nx x/renamed trusted.overlay.redirect dir\nx x trusted.overlay.impure y", "f x/dir/in deep\nd x/empty")
			mount := func() *harness.Mount {
				if kind == "kernel" {
					return l.Kernel(t, "redirect_dir=on", "index=on")
				}
				return l.Plyfs(t)
			}
			m := mount()
			must(t, os.Rename(m.Path("x/renamed"), m.Path("x/empty/moved")))
			for range 2 {
				if got := content(t, m.Path("x/empty/moved/in")); got != "deep" {
					t.Errorf("has %q", got)
				}
				m.Close(t)
				m = mount()
			}
		})
	}
}

// TestMetacopyAfterRemount: the data of a metadata-only file is in the lowest layer.
func TestMetacopyAfterRemount(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "d x", "f x/file data\nf x/linked data\nf top data")
	m := l.Plyfs(t, "-o", "metacopy=on")
	must(t, os.Chmod(m.Path("x/file"), 0o600), os.Chmod(m.Path("top"), 0o600), os.Link(m.Path("x/linked"), m.Path("x/other")))
	m.Close(t)
	m = l.Plyfs(t, "-o", "metacopy=on")
	for _, name := range []string{"x/file", "x/linked", "x/other", "top"} {
		if got := content(t, m.Path(name)); got != "data" {
			t.Errorf("%s has %q", name, got)
		}
	}
}
