package overlay

import (
	"os"
	"path/filepath"
	"testing"
)

// Directories with a common way to them are found where EvalSymlinks finds them, links on the way and at the end included.
func TestRealPaths(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"a/b/c", "a/b/d"} {
		if err := os.MkdirAll(at(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"way": "a/b", "a/end": "b/c", "twice": "way", "a/b/up": "../.."} {
		if err := os.Symlink(to, at(name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	r := realPaths{}
	for _, path := range []string{
		"/", dir, at("a/b/c"), at("a/b/d"), at("way/c"), at("way/d"), at("way"), at("a/end"), at("twice/c"), at("a/b/up/way/d"),
		dir + "/way/../b/c", dir + "/a//b/c/", "a/b/c", "way/d", ".",
	} {
		want, err := filepath.EvalSymlinks(path)
		if err == nil {
			want, err = filepath.Abs(want)
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time remembered
			if got, err := r.resolve(path); err != nil || got != want {
				t.Errorf("%s: %s, %v, want %s", path, got, err, want)
			}
		}
	}
	if got, err := r.resolve(at("a/none")); !os.IsNotExist(err) {
		t.Errorf("a missing directory: %s, %v", got, err)
	}
}

func TestOverlaps(t *testing.T) {
	at := func(paths ...string) (all []userDir) {
		for _, p := range paths {
			d := userDir{what: "lower layer", path: p, real: p}
			for _, c := range p { // as good as an inode number
				d.ino = 31*d.ino + uint64(c)
			}
			all = append(all, d)
		}
		return all
	}
	for _, tt := range []struct {
		dirs []userDir
		bad  bool
	}{
		{at("/a/b", "/a/c", "/a/bc"), false},
		{at("/a/b", "/a/c", "/a/b"), true},
		{at("/a/b/c/d", "/x", "/a/b"), true},
		{at("/a", "/x", "/a/b/c/d"), true},
		{at("/a", "/"), true},
		{at("/"), false},
	} {
		if err := overlaps(tt.dirs); (err != nil) != tt.bad {
			t.Errorf("%v: %v", tt.dirs, err)
		}
	}
	// By two ways: a bind mount.
	twice := at("/a", "/b")
	twice[1].ino = twice[0].ino
	if overlaps(twice) == nil {
		t.Error("one directory by two paths passes")
	}
}
