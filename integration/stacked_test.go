package integration

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// What each upper of TestStackedUppers does to the files below it, none of which it gets the data of.
var stackedLower = `
	F foo 300k
	F linked 301k
	F two 302k
	h too two
	F from/file 303k
	F tree/a/b/deep 304k
	F tree/a/aside 305k
	F swap1 306k
	F swap2 307k
	F hidden 308k
	d to`

var stackedUppers = []string{
	`mv foo no
	 ln linked linkedtoo
	 chmod two
	 mv from/file to/file
	 chmod tree/a/b/deep
	 mv tree/a b
	 swap swap1 swap2
	 mv hidden shown
	 put hidden`,
	`mv no foo
	 ln linkedtoo to/third
	 mv two to/two
	 mv to/file back
	 mv b/b/deep deep
	 mv b/b from/b
	 mv b/aside from/b/deep
	 swap swap2 swap1
	 mv shown from/b/shown
	 mv from up`,
	`mv foo no
	 ln no to/no
	 mv to/third linkedfour
	 ln linked linkedfive
	 ln too three
	 mv back up/file
	 mv deep up/b/deep2
	 chmod up/b/deep
	 mv up/b/shown up/shown
	 mv up tree/up
	 mv tree/up/b c
	 mv swap1 c/swap`,
}

// stacked makes the changes of one upper.
func stacked(t *testing.T, dir, changes string) {
	t.Helper()
	for line := range strings.Lines(changes) {
		f := strings.Fields(line)
		a := dir + "/" + f[1]
		var err error
		switch f[0] {
		case "mv":
			err = os.Rename(a, dir+"/"+f[2])
		case "ln":
			err = os.Link(a, dir+"/"+f[2])
		case "swap":
			err = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, dir+"/"+f[2], unix.RENAME_EXCHANGE)
		case "chmod":
			err = os.Chmod(a, 0o600)
		case "put":
			err = os.WriteFile(a, []byte(line), 0o644)
		}
		if err != nil {
			t.Errorf("%s: %v", strings.TrimSpace(line), err)
		}
	}
}

// Uppers with metadata-only files become layers, and what is in them is renamed and linked again in the next
// upper, and in the one over that: whoever wrote which, here and in the kernel every file keeps its data.
func TestStackedUppers(t *testing.T) {
	options := []string{"redirect_dir=on", "metacopy=on", "index=on"}
	for _, tt := range []struct{ name, writers, flags string }{
		{"all by plyfs", "ppp", "metacopy=on,index=on"},
		{"all by the kernel", "kkk", "metacopy=on,index=on"},
		{"by plyfs over the kernel", "kpk", "metacopy=on,index=on"},
		{"by the kernel over plyfs", "pkp", "metacopy=on,index=on"},
		{"all names of links", "ppp", "metacopy=on"}, // which the kernel leaves to the index
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, k := harness.NewLayers(t, stackedLower), harness.NewLayers(t, stackedLower)
			for i, changes := range stackedUppers {
				oracle := k.Kernel(t, options...)
				stacked(t, oracle.Dir, changes)
				want := harness.Dump(t, oracle.Dir, false)
				oracle.Close(t)
				plyfs := func() *harness.Mount { return l.Plyfs(t, "-o", tt.flags) }
				write := plyfs
				if tt.writers[i] == 'k' {
					write = func() *harness.Mount { return l.Kernel(t, options...) }
				}
				m := write()
				stacked(t, m.Dir, changes)
				if tt.flags == "metacopy=on" {
					want = harness.Dump(t, m.Dir, false)
				}
				view := func(who string, m *harness.Mount) {
					t.Helper()
					if diff := cmp.Diff(want, harness.Dump(t, m.Dir, false)); diff != "" {
						t.Errorf("upper %d, kernel's own (-), %s (+):\n%s", i+1, who, diff)
					}
					m.Close(t)
				}
				view("as written", m)
				view("plyfs", plyfs())
				view("kernel", l.Kernel(t, options...))
				stackUpper(t, l)
				stackUpper(t, k)
			}
			for _, name := range []string{"no", "foo"} { // else nothing was tried
				for i, d := range l.Lowers[:len(stackedUppers)] {
					_, err := unix.Lgetxattr(d+"/"+name, "trusted.overlay.metacopy", nil)
					if want := (name == "no") == (i != 1); want != (err == nil) {
						t.Errorf("%s is metadata-only: %v", d+"/"+name, err == nil)
					}
				}
			}
		})
	}
}

// stackUpper makes the upper the topmost lower layer, and gives the stack a new one.
func stackUpper(t *testing.T, l *harness.Layers) {
	t.Helper()
	l.Lowers = append([]string{l.Upper}, l.Lowers...)
	l.Upper, l.Work = l.Upper+"+", l.Work+"+"
	for _, d := range []string{l.Upper, l.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
