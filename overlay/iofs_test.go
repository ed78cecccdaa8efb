package overlay_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// stack makes directories with files, one per tree, topmost first, and returns a union of them
// with an empty upper. A tree is NAME=CONTENT, NAME>TARGET (a link) and NAME/ (a directory), blanks between.
func stack(t testing.TB, trees ...string) *overlay.FS {
	t.Helper()
	dir := t.TempDir()
	cfg := overlay.DefaultConfig()
	cfg.Upper, cfg.Work, cfg.Log = dir+"/upper", dir+"/work", t.Logf
	err := errors.Join(os.Mkdir(cfg.Upper, 0o755), os.Mkdir(cfg.Work, 0o755))
	for i, tree := range trees {
		lower := fmt.Sprintf("%s/lower%d", dir, i)
		err = errors.Join(err, os.Mkdir(lower, 0o755))
		for _, f := range strings.Fields(tree) {
			at := strings.IndexAny(f, "=>")
			if at < 0 {
				err = errors.Join(err, os.MkdirAll(filepath.Join(lower, f), 0o755))
				continue
			}
			path := filepath.Join(lower, f[:at])
			err = errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o755))
			if f[at] == '>' {
				err = errors.Join(err, os.Symlink(f[at+1:], path))
			} else {
				err = errors.Join(err, os.WriteFile(path, []byte(f[at+1:]), 0o644))
			}
		}
		cfg.Lowers = append(cfg.Lowers, lower)
	}
	if err != nil {
		t.Fatal(err)
	}
	u, err := overlay.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// What the library's own test asks of a filesystem, before and after changes.
func TestViewIsAFilesystem(t *testing.T) {
	u := stack(t, "a=top d/f=1 d/link>f up>../d", "a=hidden b=2 d/g=3 d/sub/deep=4 gone=5 abs>/d/sub")
	v := u.View()
	want := []string{"a", "b", "d/f", "d/g", "d/link", "d/sub/deep", "up", "abs"}
	if err := fstest.TestFS(v, append(want, "gone")...); err != nil {
		t.Error(err)
	}
	var a overlay.Attr
	if err := u.Unlink(nil, u.Root(), "gone"); err != nil {
		t.Fatal(err)
	}
	n, err := u.Mknod(nil, u.Root(), "new", unix.S_IFREG|0o640, 0, &a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.WriteAt(nil, n, []byte("written"), 0, false); err != nil {
		t.Fatal(err)
	}
	u.Forget(n.ID(), 1)
	if err := fstest.TestFS(v, append(want, "new")...); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{"a": "top", "b": "2", "d/g": "3", "new": "written", "up/f": "1", "abs/deep": "4", "d/link": "1"} {
		if got, err := fs.ReadFile(v, name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if nodes := u.Stat().Nodes; nodes != 1 {
		t.Errorf("%d nodes are kept, want the root alone", nodes)
	}
}

func TestViewErrors(t *testing.T) {
	u := stack(t, "f=0123456789 d/x=1 loop>loop out>../../../../d dangling>nothing")
	v := u.View()
	for name, want := range map[string]error{
		"none": fs.ErrNotExist, "f/x": unix.ENOTDIR, "loop": unix.ELOOP, "dangling": fs.ErrNotExist,
		"../d": fs.ErrInvalid, "/f": fs.ErrInvalid, "": fs.ErrInvalid,
	} {
		if _, err := v.Open(name); !errors.Is(err, want) {
			t.Errorf("open %q: %v, want %v", name, err, want)
		}
		if _, err := v.Stat(name); !errors.Is(err, want) {
			t.Errorf("stat %q: %v, want %v", name, err, want)
		}
	}
	if got, err := v.ReadFile("out/x"); err != nil || string(got) != "1" {
		t.Errorf("a link out of the view: %q, %v", got, err)
	}
	if _, err := v.ReadFile("d"); !errors.Is(err, unix.EISDIR) {
		t.Errorf("reading a directory: %v", err)
	}
	if _, err := v.ReadDir("f"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("listing a file: %v", err)
	}
	if _, err := v.ReadLink("f"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("readlink of a file: %v", err)
	}
	f, err := v.Open("f")
	if err != nil {
		t.Fatal(err)
	}
	// A file stays readable when its name is gone.
	if err := u.Unlink(nil, u.Root(), "f"); err != nil {
		t.Error(err)
	}
	if at, err := f.(io.Seeker).Seek(-3, io.SeekEnd); err != nil || at != 7 {
		t.Errorf("seek: %d, %v", at, err)
	}
	if got, err := io.ReadAll(f); err != nil || string(got) != "789" {
		t.Errorf("%q, %v", got, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("reading a closed file: %v", err)
	}
	if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closing it again: %v", err)
	}
	if nodes := u.Stat().Nodes; nodes != 1 {
		t.Errorf("%d nodes are kept, want the root alone", nodes)
	}
}

// Two layers seen as one tree, without a mount.
func Example() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{"base/motd": "hello", "base/etc/hosts": "localhost", "patch/motd": "good morning"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			log.Fatal(err)
		}
	}

	cfg := overlay.DefaultConfig()
	cfg.Lowers = []string{filepath.Join(dir, "patch"), filepath.Join(dir, "base")}
	union, err := overlay.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer union.Close()

	err = fs.WalkDir(union.View(), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			text, _ := fs.ReadFile(union.View(), name)
			fmt.Printf("%s: %s\n", name, text)
		}
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// etc/hosts: localhost
	// motd: good morning
}
