package rig

import (
	"os"
	"path/filepath"
	"testing"
)

// What a killed process left goes when the next one makes its own; what belongs to one that lives stays.
func TestTempDir(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	dead := filepath.Join(os.TempDir(), "some-1", "deep")
	if err := os.MkdirAll(dead, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(os.TempDir(), "some-1", lockName), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	first, done, err := TempDir("some-")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Dir(dead)); !os.IsNotExist(err) {
		t.Errorf("of the dead: %v", err)
	}
	_, doneToo, err := TempDir("some-")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(first); err != nil {
		t.Errorf("of the living: %v", err)
	}
	done()
	doneToo()
	if left, err := os.ReadDir(os.TempDir()); len(left) > 0 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
}
