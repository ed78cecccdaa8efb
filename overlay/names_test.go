package overlay

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
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

// An index takes the memory of its entries, not of the buffer it grew in, which the next listing uses again: what one
// directory had must not be in another's.
func TestIndexMemory(t *testing.T) {
	dir := t.TempDir()
	c := DefaultConfig()
	c.Lowers, c.Log = []string{dir}, t.Logf
	sizes := []int{700, 0, 3, 90}
	for i, size := range sizes {
		if err := os.Mkdir(fmt.Sprintf("%s/%d", dir, i), 0o755); err != nil {
			t.Fatal(err)
		}
		for j := range size {
			if err := os.WriteFile(fmt.Sprintf("%s/%d/%d-%d", dir, i, i, j), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	fs, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	indexes := make([]*nameIndex, len(sizes))
	for i := range sizes {
		var a Attr
		n, err := fs.Lookup(nil, fs.root, fmt.Sprint(i), &a)
		if err != nil {
			t.Fatal(err)
		}
		if indexes[i], err = fs.readNames(n.d); err != nil {
			t.Fatal(err)
		}
		fs.unref(n, 1)
	}
	for i, x := range indexes {
		seen := map[string]bool{}
		for _, e := range x.ents {
			seen[e.name] = strings.HasPrefix(e.name, fmt.Sprint(i)+"-")
		}
		if len(x.ents) != sizes[i] || len(seen) != sizes[i] || slices.Contains(slices.Collect(maps.Values(seen)), false) {
			t.Errorf("directory %d: %d entries of %d: %v", i, len(x.ents), sizes[i], seen)
		}
		if spare := cap(x.ents) - len(x.ents); spare > len(x.ents)/4+8 {
			t.Errorf("directory %d: room for %d entries beside its %d", i, spare, len(x.ents))
		}
	}
}

// Many misses in a directory make its list be read, if it is not long; then names that come and go are still seen.
func TestMissesReadTheList(t *testing.T) {
	dir := t.TempDir()
	c := DefaultConfig()
	c.Lowers, c.Upper, c.Work, c.Log = []string{dir + "/lower"}, dir+"/upper", dir+"/work", t.Logf
	err := errors.Join(os.Mkdir(c.Upper, 0o755), os.Mkdir(c.Work, 0o755), os.MkdirAll(dir+"/lower/short", 0o755), os.Mkdir(dir+"/lower/long", 0o755))
	for i := range 3000 {
		err = errors.Join(err, os.WriteFile(fmt.Sprintf("%s/lower/long/%d", dir, i), nil, 0o644))
	}
	if err := errors.Join(err, os.WriteFile(dir+"/lower/short/a", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	fs, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	for name, misses := range map[string]int{"short": missesMin, "long": 4096} {
		var a Attr
		n, err := fs.Lookup(nil, fs.root, name, &a)
		if err != nil {
			t.Fatal(err)
		}
		miss := func(name string) {
			t.Helper()
			if _, err := fs.Lookup(nil, n, name, &a); Errno(err) != unix.ENOENT {
				t.Fatalf("%s: %v", name, err)
			}
		}
		for i := range misses {
			if n.d.index.Load() != nil && (name == "short" || i <= missesMin) {
				t.Fatalf("%s: the list was read for %d misses", name, i)
			}
			miss(fmt.Sprint("missing", i))
		}
		if !fs.wantIndex(n) {
			t.Errorf("%s: the list was not read for %d misses", name, misses)
		}
		child, err := fs.Mknod(nil, n, "missing0", unix.S_IFREG|0o644, 0, &a)
		if err != nil {
			t.Fatal(err)
		}
		again, err := fs.Lookup(nil, n, "missing0", &a)
		if again != child {
			t.Errorf("%s: what was made is not found: %v", name, err)
		}
		if err := fs.Unlink(nil, n, "missing0"); err != nil {
			t.Fatal(err)
		}
		miss("missing0")
	}
}
