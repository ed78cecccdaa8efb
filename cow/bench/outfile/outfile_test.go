package outfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range all {
		out = append(out, e.Name())
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
}

// What cannot be written to is known before, in one line that names it and says why.
func TestCheckRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink("loop", dir+"/loop"), os.Symlink("none/x", dir+"/lost")); err != nil {
		t.Fatal(err)
	}
	for path, why := range map[string]string{
		dir:                "it is a directory",
		dir + "/new/":      "it is a directory",
		dir + "/none/new":  "there is no directory " + dir + "/none",
		dir + "/lost":      "there is no directory " + dir + "/none",
		dir + "/file/new":  "not a directory",
		dir + "/loop":      "too many levels of symbolic links",
		"/proc/self/nofil": "", // whatever proc says
	} {
		_, err := Check(path)
		if err == nil || !strings.Contains(err.Error(), path+": ") || !strings.Contains(err.Error(), why) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", path, err, why)
		}
	}
	for path, why := range map[string]string{dir + "/file": "is not a directory", dir + "/file/a/b": "not a directory", "/proc/self/new": ""} {
		if err := CheckDir(path); err == nil || !strings.Contains(err.Error(), path+": ") || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", path, err, why)
		}
	}
	if got := names(t, dir); !slices.Equal(got, []string{"file", "loop", "lost"}) {
		t.Errorf("checking left %q", got)
	}
}

// An older file stays until the new one is complete, and what is made has its owner's mode and no other name.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(dir+"/old", []byte("old"), 0o600), os.Symlink("old", dir+"/link"), os.Symlink("target", dir+"/dangling")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir + "/link", dir + "/new", dir + "/dangling"} {
		f, err := Check(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); (err == nil) != (path == dir+"/link") {
			t.Errorf("after the check: %v", err)
		}
		failed := errors.New("no more")
		if err := f.Write(func(w io.Writer) error { io.WriteString(w, "half"); return failed }); !errors.Is(err, failed) {
			t.Errorf("%v", err)
		}
		if got := read(t, dir+"/old"); got != "old" && path == dir+"/link" {
			t.Errorf("after a failure it has %q", got)
		}
		if err := f.Write(text("new")); err != nil || read(t, path) != "new" {
			t.Errorf("%s: %v", path, err)
		}
	}
	if st, err := os.Lstat(dir + "/link"); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", st, err)
	}
	if st, err := os.Stat(dir + "/old"); err != nil || st.Mode() != 0o600 || read(t, dir+"/old") != "new" {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"dangling", "link", "new", "old", "target"}) {
		t.Errorf("there are %q", got)
	}
}

// What is no regular file is written to, not replaced.
func TestDirect(t *testing.T) {
	dir := t.TempDir()
	fifo := dir + "/fifo"
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Check(fifo) // must not wait for a reader
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string)
	go func() { b, _ := os.ReadFile(fifo); got <- string(b) }()
	if err := f.Write(text("through")); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != "through" {
		t.Errorf("came out: %q", s)
	}
	if f, err = Check("/dev/null"); err != nil || f.Write(text("x")) != nil {
		t.Errorf("/dev/null: %v", err)
	}
	if st, err := os.Stat("/dev/null"); err != nil || st.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("/dev/null is %v, %v", st, err)
	}
}

// Standard output is itself under each of its names, also when it is a regular file.
func TestStandard(t *testing.T) {
	old := os.Stdout
	t.Cleanup(func() { os.Stdout = old })
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	os.Stdout = file
	dash, err := Check("-")
	if err != nil || !dash.Standard() {
		t.Fatalf("%+v, %v", dash, err)
	}
	named, err := Check(file.Name())
	if err != nil || !named.Standard() || !named.Same(dash) {
		t.Fatalf("%+v, %v", named, err)
	}
	io.WriteString(os.Stdout, "one ")
	if err := errors.Join(dash.Write(text("two ")), named.Write(text("three"))); err != nil || read(t, file.Name()) != "one two three" {
		t.Errorf("%q, %v", read(t, file.Name()), err)
	}
}

// Two results do not go to one file.
func TestSame(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(dir+"/a", nil, 0o600), os.Symlink("a", dir+"/b")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, c := range []struct {
		a, b string
		same bool
	}{{"a", dir + "/a", true}, {"a", "b", true}, {"a", "c", false}, {"c", "./c", true}, {"-", "-", true}, {"-", "a", false}, {"/dev/null", "/dev/null", true}} {
		a, errA := Check(c.a)
		b, errB := Check(c.b)
		if errA != nil || errB != nil || a.Same(b) != c.same || b.Same(a) != c.same {
			t.Errorf("%s and %s: %v, %v", c.a, c.b, errA, errB)
		}
	}
}

// A directory is made only when there is something for it.
func TestDir(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "a/b")
	if err := CheckDir(at); err != nil || len(names(t, dir)) != 0 {
		t.Fatalf("%v, %q", err, names(t, dir))
	}
	for range 2 {
		if err := WriteDir(at, map[string][]byte{"x": []byte("1"), "y": []byte("2")}); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(t, at); !slices.Equal(got, []string{"x", "y"}) || read(t, at+"/y") != "2" {
		t.Errorf("%q", got)
	}
}

// Two paths of a file that is not there yet are one place.
func TestSameBehindLink(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/real", 0o755), os.Symlink("real", dir+"/link")); err != nil {
		t.Fatal(err)
	}
	a, err := Check(dir + "/real/out")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"link/out": true, "link/../real/out": true, "link/other": false} {
		b, err := Check(dir + "/" + path)
		if err != nil {
			t.Fatal(err)
		}
		if a.Same(b) != want {
			t.Errorf("%s: %v, want %v", path, !want, want)
		}
	}
}
