package overlay

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/plyfs/plyfs/layer"
)

// An operation that panics in its middle leaves nothing locked: the same operations work afterwards.
func TestPanicUnlocks(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"lower/d/e", "upper", "work"} {
		if err := os.MkdirAll(at(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"lower/a", "lower/b", "lower/c", "lower/d/f"} {
		if err := os.WriteFile(at(f), []byte("contents"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cfg := DefaultConfig()
	cfg.Lowers, cfg.Upper, cfg.Work = []string{at("lower")}, at("upper"), at("work")
	cfg.SettleBudget = -1
	cfg.Log = t.Logf
	fs, err := New(cfg)
	if err != nil {
		t.Skip(err)
	}
	defer fs.Close()
	var a Attr
	find := func(name string) *Node {
		t.Helper()
		n, err := fs.Lookup(nil, fs.root, name, &a)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	file, other, sub := find("a"), find("b"), find("d")
	operations := []struct {
		name string
		do   func() error
	}{
		{"write", func() error { _, err := fs.WriteAt(nil, file, []byte("X"), 0, false); return err }},
		{"chmod", func() error { return fs.Setattr(nil, other, &SetAttr{Mask: SetMode, Mode: 0o600}, &a) }},
		{"truncate", func() error { return fs.Setattr(nil, find("c"), &SetAttr{Mask: SetSize, Size: 3}, &a) }},
		{"mknod", func() error { _, err := fs.Mknod(nil, sub, "new", 0o100644, 0, &a); return err }},
		{"mkdir", func() error { _, err := fs.Mkdir(nil, fs.root, "newdir", 0o755, &a); return err }},
		{"symlink", func() error { _, err := fs.Symlink(nil, fs.root, "newlink", "x", &a); return err }},
		{"link", func() error { return fs.Link(nil, file, fs.root, "hard", &a) }},
		{"rename", func() error { return fs.Rename(nil, fs.root, "c", sub, "c", 0) }},
		{"unlink", func() error { return fs.Unlink(nil, sub, "f") }},
		{"rename of a directory", func() error { return fs.Rename(nil, fs.root, "d", fs.root, "dd", 0) }},
		{"unlink of an upper file", func() error { return fs.Unlink(nil, fs.root, "b") }},
	}
	limited := func(name string, f func()) {
		t.Helper()
		done := make(chan struct{})
		go func() { defer close(done); f() }()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Fatalf("%s hangs", name)
		}
	}
	stage, eng := fs.stage, fs.eng
	for _, op := range operations {
		panicked := false
		limited(op.name, func() {
			defer func() { panicked = recover() != nil }()
			fs.stage, fs.eng = (*layer.Dir)(nil), nil // what every change needs
			_ = op.do()
		})
		fs.stage, fs.eng = stage, eng
		t.Logf("%s: panicked %v", op.name, panicked)
		limited("looking after "+op.name, func() {
			for _, n := range []*Node{file, other, sub, fs.root} {
				if err := fs.Getattr(n, &a); err != nil {
					t.Errorf("%s: %v", op.name, err)
				}
			}
			entries := make([]Entry, 64)
			for _, n := range []*Node{fs.root, sub} {
				if _, err := fs.ReadDir(n, 0, entries); err != nil {
					t.Errorf("%s: %v", op.name, err)
				}
			}
		})
		if !panicked {
			continue // it was done
		}
		limited(op.name+" again", func() {
			if err := op.do(); err != nil {
				t.Errorf("%s, after a panic in it: %v", op.name, err)
			}
		})
	}
}
