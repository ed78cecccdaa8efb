package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCheckLayer(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"good", "bad", "plain"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "file"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range []struct{ path, key, value string }{
		{"good", "opaque", "y"},
		{"good", "redirect", "old-name"},
		{"good/file", "nlink", "U-1"},
		{"good/file", "metacopy", ""},
		{"good/file", "overlay.opaque", "of a nested overlay"},
		{"bad", "opaque", "maybe"},
		{"bad", "redirect", "../../etc"},
		{"bad", "metacopy", ""},
		{"bad/file", "nlink", "3"},
		{"bad/file", "impure", "y"},
	} {
		err := unix.Lsetxattr(filepath.Join(dir, m.path), "user.overlay."+m.key, []byte(m.value), 0)
		if err == unix.EOPNOTSUPP {
			t.Skip("the temporary directory's filesystem has no user attributes")
		}
		if err != nil {
			t.Fatal(m, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "plain", ".wh.gone"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := checkLayer(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range r.Findings {
		if !f.Wrong {
			t.Errorf("unexpected note: %+v", f)
		}
		text, _, _ := strings.Cut(strings.TrimPrefix(f.Text, "mark "), " ")
		got = append(got, f.Path+" "+strings.TrimSuffix(text, ":"))
	}
	want := map[string]bool{"bad opaque": true, "bad redirect": true, "bad metacopy": true, "bad/file nlink": true, "bad/file impure": true}
	for _, g := range got {
		if !want[g] {
			t.Errorf("unexpected: %s", g)
		}
		delete(want, g)
	}
	for w := range want {
		t.Errorf("not found: %s", w)
	}
	if r.Files != 8 || r.Marks["whiteout"] != 1 || r.Marks["opaque"] != 2 {
		t.Errorf("counted %d files, %v", r.Files, r.Marks)
	}
	if _, err := checkLayer(filepath.Join(dir, "good/file")); err == nil {
		t.Error("a file is no layer")
	}
}
