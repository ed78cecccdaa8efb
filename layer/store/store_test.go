package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/layer/layertest"
)

// tempDir returns a directory that goes with the test: in memory where that is possible,
// because a store waits for the disk at every step.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "plyfs-store-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func open(t *testing.T) *Store {
	t.Helper()
	layertest.NeedOwner(t)
	s, err := Open(filepath.Join(tempDir(t), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDefaultRoot(t *testing.T) {
	t.Setenv("HOME", "/home/ann")
	t.Setenv("XDG_DATA_HOME", "")
	t.Setenv(RootVariable, "")
	check := func(rootless bool, want string) {
		t.Helper()
		if got, err := DefaultRoot(rootless); err != nil || got != want {
			t.Errorf("DefaultRoot(%v) = %q, %v; want %q", rootless, got, err, want)
		}
	}
	check(false, "/var/lib/plyfs")
	check(true, "/home/ann/.local/share/plyfs")
	t.Setenv("XDG_DATA_HOME", "relative")
	check(true, "/home/ann/.local/share/plyfs")
	t.Setenv("XDG_DATA_HOME", "/data")
	check(true, "/data/plyfs")
	t.Setenv(RootVariable, "/elsewhere")
	check(true, "/elsewhere")
	check(false, "/elsewhere")
}

func TestSweep(t *testing.T) {
	s := open(t)
	held, err := s.Stage("held")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	left := s.Path("staging", "left-1")
	if err := os.MkdirAll(left+"/a/b", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(left+"/a/f", nil, 0); err != nil {
		t.Fatal(err)
	}
	half := s.Path("images", ".new-123")
	if err := os.WriteFile(half, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.Root()); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{left, half} {
		if _, err := os.Lstat(gone); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
	if _, err := os.Lstat(held.Dir); err != nil {
		t.Errorf("a stage in use was swept: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if e, _ := os.ReadDir(s.Path("staging")); len(e) != 0 {
		t.Errorf("left in staging: %v", e)
	}
}

func TestUpdateExcludes(t *testing.T) {
	s := open(t)
	// A file, because the race detector knows nothing of flock.
	path := s.Path("n")
	add := func() error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, append(b, '+'), 0o600)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 50 {
				if err := s.Update(add); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	if b, err := os.ReadFile(path); err != nil || len(b) != 400 {
		t.Errorf("%d updates, want 400 (%v)", len(b), err)
	}
}

func TestParseName(t *testing.T) {
	for in, want := range map[string]string{
		"app":                             "app:latest",
		"app:v1":                          "app:v1",
		"docker.io/library/debian:12":     "debian:12",
		"index.docker.io/library/debian":  "debian:latest",
		"docker.io/ann/app":               "ann/app:latest",
		"localhost:5000/a/b:c":            "localhost:5000/a/b:c",
		"index.docker.io/docker.io/a":     "docker.io/docker.io/a:latest",
		"quay.io/x/y_z":                   "quay.io/x/y_z:latest",
		"[::1]:5000/a":                    "[::1]:5000/a:latest",
		"a/b/c/d":                         "a/b/c/d:latest",
		strings.Repeat("a", 255) + ":t.x": strings.Repeat("a", 255) + ":t.x",
	} {
		got, err := ParseName(in)
		if err != nil || got != want {
			t.Errorf("ParseName(%q) = %q, %v; want %q", in, got, err, want)
		}
		if again, err := ParseName(got); err != nil || again != got {
			t.Errorf("ParseName(%q) = %q, %v", got, again, err)
		}
	}
	for _, bad := range []string{"", ":", "a:", ":t", "A", "a b", "a//b", "/a", "a/", "../a", "a/../b", "a@sha256:0", "-a",
		"a:t:u", "a:" + strings.Repeat("t", 129), strings.Repeat("a", 256), "ex..org/a", "a\n", "docker.io/"} {
		if got, err := ParseName(bad); err == nil {
			t.Errorf("ParseName(%q) = %q", bad, got)
		}
	}
}

func TestLookup(t *testing.T) {
	s := open(t)
	const a, b = "aaaa", "aabb"
	idA, idB := fakeImage(t, s, a, nil), fakeImage(t, s, b, nil)
	if err := s.writeNames(names{"app:v1": idA, "beef:latest": idB, "zzz:latest": idA}); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{"app:v1": idA, "docker.io/library/app:v1": idA, a: idA, idA: idA, "beef": idB, idB[7:12]: idB} {
		img, err := s.Image(ref)
		if err != nil || img.ID != want {
			t.Errorf("Image(%q) = %v, %v; want %s", ref, img, err, want)
		}
	}
	img, err := s.Image("zzz")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"app:v1", "zzz:latest"}, img.Names); diff != "" {
		t.Error(diff)
	}
	for _, ref := range []string{"app", "cccc", "sha256:cccc", "nothing:here"} {
		if _, err := s.Image(ref); !errors.Is(err, ErrNotFound) {
			t.Errorf("Image(%q): %v", ref, err)
		}
	}
	if _, err := s.Image("../../etc"); err == nil {
		t.Error("a path was taken for a name")
	}
	all, err := s.Images()
	if err != nil || len(all) != 2 || all[0].ID != idA {
		t.Errorf("Images() = %v, %v", all, err)
	}
}
