package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer/store/userns"
)

func targetAt(t *testing.T, path string) *target {
	t.Helper()
	to, err := newTarget(path)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func writes(text string) func(f *os.File) error {
	return func(f *os.File) error { _, err := f.WriteString(text); return err }
}

// in lists a directory.
func in(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// The target has what it had or all that was written, and there is never anything beside it, on filesystems with and
// without files that have no name.
func TestTargetFile(t *testing.T) {
	failed := errors.New("failed")
	for how, named := range map[string]bool{"nameless": false, "named": true} {
		t.Run(how, func(t *testing.T) {
			dir := tempDir(t)
			path := dir + "/" + strings.Repeat("x", 250) + ".tar"
			put := func(path string, write func(f *os.File) error) error {
				to := targetAt(t, path)
				if !named {
					return to.file(write)
				}
				f, temp, err := to.named()
				if err != nil {
					t.Fatal(err)
				}
				st, _ := os.Stat(to.path)
				return to.put(f, temp, st, write)
			}
			check := func(want string) {
				t.Helper()
				if b, err := os.ReadFile(path); string(b) != want || err != nil && want != "" {
					t.Errorf("%q, %v, want %q", b, err, want)
				}
			}
			if err := put(path, func(f *os.File) error { f.WriteString("half"); return failed }); err != failed {
				t.Error(err)
			}
			if got := in(t, dir); got != "" {
				t.Errorf("left: %s", got)
			}
			if err := put(path, writes("one")); err != nil {
				t.Error(err)
			}
			check("one")
			if err := os.Chmod(path, 0o640); err != nil {
				t.Fatal(err)
			}
			if err := put(path, func(f *os.File) error { f.WriteString("half"); return failed }); err != failed {
				t.Error(err)
			}
			check("one")
			if err := put(path, writes("two")); err != nil {
				t.Error(err)
			}
			check("two")
			if st, err := os.Stat(path); err != nil || st.Mode() != 0o640 {
				t.Errorf("%v, %v", st, err)
			}
			// A link to it stays one.
			if err := os.Symlink(filepath.Base(path), dir+"/link"); err != nil {
				t.Fatal(err)
			}
			if err := put(dir+"/link", writes("three")); err != nil {
				t.Error(err)
			}
			check("three")
			// What is written at once is one of both.
			var wg sync.WaitGroup
			for range 8 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					if err := put(path, writes("four")); err != nil {
						t.Error(err)
					}
				}()
			}
			wg.Wait()
			check("four")
			if got := in(t, dir); got != "link "+filepath.Base(path) {
				t.Errorf("left: %s", got)
			}
			// An error of writing is about the target.
			err := put(path, func(f *os.File) error { f.Close(); _, err := f.WriteString("x"); return err })
			if err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), ".plyfs-") {
				t.Error(err)
			}
		})
	}
}

// Errors name the target as the user does.
func TestTargetErrors(t *testing.T) {
	dir := tempDir(t)
	t.Chdir(dir)
	if err := errors.Join(os.Mkdir("full", 0o755), os.WriteFile("full/f", nil, 0o600), os.Mkdir("empty", 0o755), os.Symlink("empty", "link"), os.WriteFile("file", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"none/out": "create none/out: no such file", "full": "full: there is something", "file": "file: there is something", "file/x": "x: ", "/proc/out": "create /proc/out: no such file"} {
		err := targetAt(t, path).directory(func(string) error { return nil })
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), ".plyfs-") {
			t.Errorf("%s: %v, want %q in it", path, err, want)
		}
	}
	for path, want := range map[string]string{"none/out": "create none/out: no such file", "full": "full: is a directory"} {
		if err := targetAt(t, path).file(writes("x")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", path, err, want)
		}
	}
	err := targetAt(t, "new").directory(func(dir string) error { return os.WriteFile(dir+"/no/such", nil, 0o600) })
	if err == nil || err.Error() != "open new: no such file or directory" {
		t.Error(err)
	}
	for _, path := range []string{"new", "empty", "link", "other/"} {
		if err := targetAt(t, path).directory(func(dir string) error { return os.WriteFile(dir+"/f", []byte(path), 0o600) }); err != nil {
			t.Error(err)
		}
		if path == "empty" {
			if err := errors.Join(os.Remove("empty/f")); err != nil {
				t.Error(err)
			}
			continue
		}
		if b, err := os.ReadFile(path + "/f"); err != nil || string(b) != path {
			t.Errorf("%q, %v", b, err)
		}
	}
	if got := in(t, "."); got != "empty file full link new other" {
		t.Errorf("left: %s", got)
	}
}

// What a killed save left beside the target goes with the next one: if it is ours, and nobody is at it.
func TestTargetSweep(t *testing.T) {
	dir := tempDir(t)
	to := targetAt(t, dir+"/out")
	stale := to.beside()
	if err := os.MkdirAll(stale+"/blobs/sha256", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{to.beside(), dir + "/.out-123", dir + "/.output.plyfs-00000004", dir + "/.out.plyfs"} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(dir+"/.out-123", dir+"/.out.plyfs-00000001"), unix.Mkfifo(dir+"/.out.plyfs-00000002", 0o600)); err != nil {
		t.Fatal(err)
	}
	kept := []string{".out-123", ".out.plyfs", ".out.plyfs-00000001", ".out.plyfs-00000002", ".output.plyfs-00000004"}
	if os.Geteuid() == 0 && !userns.OneID() { // somebody else's
		if err := errors.Join(os.WriteFile(dir+"/.out.plyfs-00000003", nil, 0o600), os.Chown(dir+"/.out.plyfs-00000003", 7, 7)); err != nil {
			t.Fatal(err)
		}
		kept = append(kept[:4], ".out.plyfs-00000003", ".output.plyfs-00000004")
	}
	err := to.directory(func(temp string) error { // a save that goes on
		err := targetAt(t, dir+"/out").file(writes("x"))
		if _, e := os.Lstat(temp); e != nil {
			t.Error("it was swept away:", e)
		}
		return errors.Join(err, os.Remove(dir+"/out"))
	})
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(strings.Join(kept, " ")+" out", in(t, dir)); diff != "" {
		t.Error(diff)
	}
}

// Only names that we give are swept: others may begin like them.
func TestTargetSweepsItsOwn(t *testing.T) {
	dir := tempDir(t)
	for _, name := range []string{".out.tar.plyfs-notes", ".out.tar.plyfs-0123456", ".out.tar.plyfs-012345678", ".out.tar.plyfs-0123456G"} {
		if err := os.WriteFile(dir+"/"+name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := in(t, dir)
	if err := os.WriteFile(dir+"/.out.tar.plyfs-0123abcd", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	targetAt(t, dir+"/out.tar")
	if got := in(t, dir); got != before {
		t.Errorf("left: %s, want %s", got, before)
	}
}

// A link that leads to nothing yet stays one, too.
func TestTargetBehindLink(t *testing.T) {
	dir := tempDir(t)
	for _, err := range []error{
		os.MkdirAll(dir+"/far/real", 0o755), os.Symlink("far/real", dir+"/near"),
		os.Symlink("near/../out.tar", dir+"/one"), os.Symlink(dir+"/one", dir+"/two"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"first", "second"} {
		if err := targetAt(t, dir+"/two").file(writes(text)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(dir + "/far/out.tar"); string(b) != text {
			t.Errorf("%q, %v, want %q", b, err, text)
		}
		if to, err := os.Readlink(dir + "/two"); to != dir+"/one" {
			t.Errorf("the link is gone: %q, %v", to, err)
		}
	}
}
