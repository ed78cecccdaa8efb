package integration

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// Lower layers with every form of a mark, topmost first; NS is the namespace.
var markedLowers = []string{
	`d forms
	 x forms NS.overlay.opaque x
	 f forms/gone
	 x forms/gone NS.overlay.whiteout y
	 f forms/back
	 x forms/back NS.overlay.whiteout y
	 w forms/char
	 f forms/full not empty, and no whiteout
	 x forms/full NS.overlay.whiteout y
	 f forms/sub/gone
	 x forms/sub NS.overlay.opaque x
	 x forms/sub/gone NS.overlay.whiteout y
	 d opaque
	 x opaque NS.overlay.opaque y
	 f opaque/top 1
	 d renamed
	 x renamed NS.overlay.redirect /before
	 w before`,
	`f forms/gone 1
	 f forms/back 2
	 f forms/char 3
	 f forms/full 4
	 f forms/stays 5
	 f forms/sub/gone 6
	 f forms/sub/stays 7
	 f opaque/hidden 9
	 f before/file 10
	 f inner/bottom/forms/gone 11
	 f inner/bottom/forms/stays 12
	 f inner/bottom/opaque/hidden 13
	 f inner/bottom/before/file 14
	 d inner/top/given
	 x inner/top/given NS.overlay.overlay.opaque y
	 f inner/bottom/given/hidden 15`,
}

// changeMarked changes what has marks, and stores the layers of another union in the view: marks of
// their own, which are escaped on the disk.
func changeMarked(t *testing.T, dir, ns string, moves bool) {
	t.Helper()
	p := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) error { return os.WriteFile(p(name), []byte(text), 0o644) }
	mark := func(name, attr, val string) error {
		return unix.Lsetxattr(p(name), ns+".overlay."+attr, []byte(val), 0)
	}
	for i, err := range []error{
		write("forms/back", "again"),
		write("forms/gone", "again"),
		os.Remove(p("forms/gone")),
		os.Remove(p("forms/stays")),
		write("forms/char", "again"),
		os.Remove(p("forms/full")),
		write("forms/sub/new", "new"),
		write("opaque/new", "new"),
		write("renamed/new", "new"),

		os.MkdirAll(p("inner/top/forms"), 0o755),
		mark("inner/top/forms", "opaque", "x"),
		write("inner/top/forms/gone", ""),
		mark("inner/top/forms/gone", "whiteout", "y"),
		os.Mkdir(p("inner/top/opaque"), 0o755),
		mark("inner/top/opaque", "opaque", "y"),
		os.Mkdir(p("inner/top/after"), 0o755),
		mark("inner/top/after", "overlay.deeper", "1"),
		os.Chmod(p("inner/top/given"), 0o700), // copied up with its mark
		os.Rename(p("inner/top/forms/gone"), p("inner/top/gone")),
		os.Rename(p("inner/top/gone"), p("inner/top/forms/gone")),
	} {
		if err != nil {
			t.Errorf("step %d: %v", i, err)
		}
	}
	if ns == "trusted" { // the kernel refuses what has one of the user's
		if err := mark("inner/top/after", "redirect", "/before"); err != nil {
			t.Error(err)
		}
	}
	if err := unix.Mknod(p("inner/top/white"), unix.S_IFCHR, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("a whiteout made in the view: %v", err)
	}
	if !moves {
		return
	}
	for i, err := range []error{
		os.Rename(p("forms/sub"), p("moved")),
		os.Mkdir(p("forms/sub"), 0o755),
		os.Remove(p("moved/stays")),
		os.Rename(p("renamed"), p("forms/renamed")),
		os.Rename(p("opaque"), p("moved/opaque")),
	} {
		if err != nil {
			t.Errorf("move %d: %v", i, err)
		}
	}
}

// shown is what a view shows: its tree, the marks that are plain attributes in it, and the
// tree of the union whose layers are in it, as the kernel mounts that.
func shown(t *testing.T, l *harness.Layers, view string, options []string) [][]string {
	t.Helper()
	inner := l.Root + "/inner"
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	o := append(options, "lowerdir="+view+"/inner/top:"+view+"/inner/bottom")
	if err := unix.Mount("inner", inner, "overlay", unix.MS_RDONLY, strings.Join(o, ",")); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(inner, 0); err != nil {
			t.Error(err)
		}
	}()
	return [][]string{harness.Dump(t, view, true), harness.Marks(t, view), harness.Dump(t, inner, true)}
}

// Every form of a mark, in the lower layers and stored in the view: whoever wrote the upper, both show
// the same of it.
func TestInterchangeMarks(t *testing.T) {
	for _, tt := range []struct {
		ns     string
		flags  []string // of plyfs
		reads  []string // options of the kernel
		writes []string
		moves  bool // the kernel renames merged directories
	}{
		{"trusted", nil, nil, []string{"redirect_dir=on", "index=on"}, true},
		{"user", []string{"-o", "userxattr"}, []string{"userxattr"}, []string{"userxattr", "index=on"}, false},
	} {
		var lowers []string
		for _, text := range markedLowers {
			if tt.ns == "user" {
				text = strings.ReplaceAll(text, "x renamed NS.overlay.redirect /before", "")
			}
			lowers = append(lowers, strings.ReplaceAll(text, "NS.", tt.ns+"."))
		}
		t.Run(tt.ns+" by plyfs", func(t *testing.T) {
			if tt.ns == "trusted" {
				harness.NeedRoot(t)
			}
			l := harness.NewLayers(t, lowers...)
			m := l.Plyfs(t, tt.flags...)
			changeMarked(t, m.Dir, tt.ns, true)
			want := shown(t, l, m.Dir, tt.reads)
			m.Close(t)
			k := l.Kernel(t, tt.reads...)
			if diff := cmp.Diff(want, shown(t, l, k.Dir, tt.reads)); diff != "" {
				t.Errorf("plyfs (-), kernel (+):\n%s", diff)
			}
			k.Close(t)
			m = l.Plyfs(t, tt.flags...)
			if diff := cmp.Diff(want, shown(t, l, m.Dir, tt.reads)); diff != "" {
				t.Errorf("before (-), after (+):\n%s", diff)
			}
		})
		t.Run(tt.ns+" by the kernel", func(t *testing.T) {
			if tt.ns == "trusted" {
				harness.NeedRoot(t)
			}
			l := harness.NewLayers(t, lowers...)
			k := l.Kernel(t, tt.writes...)
			changeMarked(t, k.Dir, tt.ns, tt.moves)
			want := shown(t, l, k.Dir, tt.reads)
			k.Close(t)
			m := l.Plyfs(t, tt.flags...)
			if diff := cmp.Diff(want, shown(t, l, m.Dir, tt.reads)); diff != "" {
				t.Errorf("kernel (-), plyfs (+):\n%s", diff)
			}
		})
	}
}
