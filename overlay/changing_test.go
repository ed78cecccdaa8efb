package overlay

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// changed makes a random change in a layer, below root.
func changed(rnd *rand.Rand, root string) (string, error) {
	name := func() string {
		p := root
		for range 1 + rnd.IntN(3) {
			p += "/" + string(rune('a'+rnd.IntN(3)))
		}
		return p
	}
	p := name()
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return "", nil // a file is there
	}
	switch rnd.IntN(9) {
	case 0:
		return "rm -r " + p, os.RemoveAll(p)
	case 1, 2:
		_ = os.Mkdir(p, 0o755)
		return "mkdir " + p, nil
	case 3:
		_ = unix.Mknod(p, unix.S_IFCHR, 0)
		return "whiteout " + p, nil
	case 4:
		_ = os.Symlink("a", p)
		return "symlink " + p, nil
	case 5: // as editors write
		if err := os.WriteFile(root+"/../new", fmt.Appendf(nil, "%d", rnd.Int()), 0o644); err != nil {
			return "", err
		}
		_ = os.Rename(root+"/../new", p)
		return "replace " + p, nil
	case 6:
		return "make anew " + p, errors.Join(os.RemoveAll(p), os.MkdirAll(p+"/b", 0o755))
	case 7:
		q := name()
		_ = os.Rename(p, q)
		return "mv " + p + " " + q, nil
	default:
		_ = os.WriteFile(p, fmt.Appendf(nil, "%d", rnd.Int()), 0o644)
		return "write " + p, nil
	}
}

// shown is what a union shows: name, type, inode number and contents.
func shown(t *testing.T, fs *FS) map[string]string {
	t.Helper()
	out := map[string]string{}
	view := fs.View()
	err := iofs.WalkDir(view, ".", func(path string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var data []byte
		switch d.Type() {
		case 0:
			data, err = view.ReadFile(path)
		case iofs.ModeSymlink:
			var to string
			to, err = view.ReadLink(path)
			data = []byte(to)
		}
		out[path] = fmt.Sprintf("%s %s", info.Mode(), data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// With LowersChange a union that has seen everything before shows the layers as they are now: what a union opened
// afterwards shows.
func TestLowersChange(t *testing.T) {
	for seed := range uint64(20) {
		dir := t.TempDir()
		c := DefaultConfig()
		c.Log = t.Logf
		for i := range 3 {
			c.Lowers = append(c.Lowers, fmt.Sprintf("%s/%d", dir, i))
		}
		var err error
		for _, d := range c.Lowers {
			err = errors.Join(err, os.Mkdir(d, 0o755))
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Mknod(dir+"/device", unix.S_IFCHR, 0); err != nil {
			t.Skip("whiteouts cannot be made: ", err)
		}
		c.LowersChange = true
		fs, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		c.LowersChange = false
		rnd := rand.New(rand.NewPCG(seed, 1))
		var steps []string
		for range 60 {
			step, err := changed(rnd, c.Lowers[rnd.IntN(3)])
			if err != nil {
				t.Fatal(err)
			}
			steps = append(steps, step)
			fresh, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			want := shown(t, fresh)
			if err := fresh.Close(); err != nil {
				t.Fatal(err)
			}
			if got := shown(t, fs); !maps.Equal(got, want) {
				t.Fatalf("seed %d, after %q: %q, want %q", seed, steps, got, want)
			}
			for _, path := range slices.Sorted(maps.Keys(want)) { // as the kernel keeps them
				var a Attr
				n := fs.root
				for _, elem := range strings.Split(path, "/") {
					if elem == "." {
						break
					}
					if n, err = fs.Lookup(nil, n, elem, &a); err != nil {
						t.Fatalf("seed %d: %s: %v", seed, path, err)
					}
				}
			}
		}
		if err := fs.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A lookup that fails for want of something says nothing of the layers: what is open keeps its name, and so what is written
// to it afterwards.
func TestLowersChangeFailedLookup(t *testing.T) {
	dir := t.TempDir()
	c := DefaultConfig()
	c.Log = t.Logf
	c.Lowers, c.Upper, c.Work = []string{dir + "/lower"}, dir+"/upper", dir+"/work"
	c.LowersChange = true
	for _, d := range []string{"lower/d", "upper", "work"} {
		if err := os.MkdirAll(dir+"/"+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/lower/d/f", []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	fs, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
	}()
	var a Attr
	d, err := fs.Lookup(nil, fs.root, "d", &a)
	if err != nil {
		t.Fatal(err)
	}
	n, err := fs.Lookup(nil, d, "f", &a)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range d.d.lowers {
		l.Forget()
	}
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	_, err = fs.Lookup(nil, d, "f", &a)
	if e := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); e != nil {
		t.Fatal(e)
	}
	if err != unix.EMFILE {
		t.Errorf("a lookup without descriptors: %v, want EMFILE", err)
	}
	if _, err := fs.WriteAt(nil, n, []byte("new"), 0, false); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(dir + "/upper/d/f"); string(b) != "new" {
		t.Errorf("what was written is not in the upper: %q, %v", b, err)
	}
}
