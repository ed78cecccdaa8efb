package integration

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// TestUpperOnPlyfs: an upper may be in a mount of plyfs, which has no device 0:0 to show and no .wh. names: what is
// removed and renamed there is gone all the same, now, when both were mounted again, and where the upper is a layer.
func TestUpperOnPlyfs(t *testing.T) {
	harness.NeedRoot(t)
	const tree = `
		f gone 1
		f again 2
		f linked 3
		f moved 4
		f over 5
		d rest
		f full/of/files 6
		f turned/file 7
		f swapped/a 8
		f emptied/x 9
		F big 300k`
	plain, l := harness.NewLayers(t, tree), harness.NewLayers(t, tree)
	base := harness.NewLayers(t, "d upper\nd work")
	l.Upper, l.Work = filepath.Join(base.Mnt, "upper"), filepath.Join(base.Mnt, "work")
	below := base.Plyfs(t)
	change := func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		for _, err := range []error{
			os.Remove(at("gone")), os.Remove(at("again")), os.Remove(at("linked")),
			os.WriteFile(at("again"), nil, 0o600),
			os.Link(at("moved"), at("linked")),
			os.Rename(at("moved"), at("moved2")),
			os.Rename(at("over"), at("rest/over")),
			os.RemoveAll(at("full")), os.Mkdir(at("full"), 0o700),
			os.Rename(at("turned"), at("turned2")), os.Rename(at("swapped"), at("turned")),
			os.Remove(at("emptied/x")), os.Remove(at("emptied")),
			os.WriteFile(at("rest/empty"), nil, 0o644), os.Remove(at("rest/empty")),
			os.Chmod(at("big"), 0o600),
		} {
			if err != nil {
				t.Error(err)
			}
		}
	}
	oracle := plain.Plyfs(t)
	change(oracle.Dir)
	want := harness.Dump(t, oracle.Dir, false)
	m := l.Plyfs(t)
	change(m.Dir)
	look := func(when, dir string) {
		t.Helper()
		if diff := cmp.Diff(want, harness.Dump(t, dir, false)); diff != "" {
			t.Errorf("%s:\n%s", when, diff)
		}
	}
	look("as written", m.Dir)
	if err := unix.Rmdir(m.Path("turned")); err != unix.ENOTEMPTY {
		t.Errorf("rmdir: %v", err)
	}
	m.Close(t)
	below.Close(t)
	below = base.Plyfs(t)
	m = l.Plyfs(t)
	look("mounted again", m.Dir)
	m.Close(t)

	// The upper as a layer, here and in the kernel's overlayfs, which read such whiteouts.
	l.Lowers = append([]string{l.Upper}, l.Lowers...)
	l.Upper, l.Work = "", ""
	m = l.Plyfs(t)
	look("as a layer", m.Dir)
	m.Close(t)
	m = l.Kernel(t, "redirect_dir=follow")
	look("as a layer of the kernel's", m.Dir)
	m.Close(t)
	below.Close(t)
}
