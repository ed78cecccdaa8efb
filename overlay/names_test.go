package overlay

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A name that goes from the upper leaves a whiteout where it would show through from below otherwise, and only there:
// not where a whiteout of a lower layer hides it already. So with the list of names and without.
func TestWhiteoutWhereNeeded(t *testing.T) {
	for _, listed := range []bool{false, true} {
		t.Run(fmt.Sprintf("listed %v", listed), func(t *testing.T) {
			dir := t.TempDir()
			c := DefaultConfig()
			c.Lowers, c.Upper, c.Work, c.Log = []string{dir + "/top", dir + "/bottom"}, dir+"/upper", dir+"/work", t.Logf
			err := errors.Join(os.Mkdir(c.Upper, 0o755), os.Mkdir(c.Work, 0o755), os.Mkdir(c.Lowers[0], 0o755), os.Mkdir(c.Lowers[1], 0o755))
			for _, name := range []string{"bottom/device", "bottom/aufs", "top/.wh.aufs", "bottom/shown"} {
				err = errors.Join(err, os.WriteFile(dir+"/"+name, nil, 0o644))
			}
			if err := errors.Join(err, unix.Mknod(dir+"/top/device", unix.S_IFCHR, 0)); err != nil {
				t.Fatal(err)
			}
			fs, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			defer fs.Close()
			if listed {
				if err := fs.each(&Caller{}, fs.root, func(*Entry) error { return nil }); err != nil {
					t.Fatal(err)
				}
			}
			for name, white := range map[string]bool{"device": false, "aufs": false, "shown": true, "new": false} {
				for turn := range 2 {
					if name != "shown" || turn > 0 {
						var a Attr
						n, err := fs.Mknod(nil, fs.root, name, unix.S_IFREG|0o644, 0, &a)
						if err != nil {
							t.Fatalf("%s: %v", name, err)
						}
						fs.unref(n, 1)
					}
					if err := fs.Unlink(nil, fs.root, name); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					var a Attr
					if _, err := fs.Lookup(nil, fs.root, name, &a); Errno(err) != unix.ENOENT {
						t.Errorf("%s is there again: %v", name, err)
					}
					var st unix.Stat_t
					if err := unix.Lstat(c.Upper+"/"+name, &st); (err == nil) != white {
						t.Errorf("%s: a whiteout in the upper: %v, want %v", name, err == nil, white)
					}
				}
			}
		})
	}
}
