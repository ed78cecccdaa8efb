package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/lab"
)

// The sample holds what the tour talks about, and the fingerprint notices a change.
func TestSample(t *testing.T) {
	dir := t.TempDir()
	if err := lab.MakeSystem(dir); err != nil {
		t.Fatal(err)
	}
	if !isWhiteout(filepath.Join(dir, "app/opt"), "trial.txt") || isWhiteout(filepath.Join(dir, "base/opt"), "trial.txt") {
		t.Error("app, and not base, deletes opt/trial.txt")
	}
	var a, b unix.Stat_t
	if unix.Stat(filepath.Join(dir, "base/bin/tool"), &a) != nil || unix.Stat(filepath.Join(dir, "base/bin/tool-1.0"), &b) != nil || a.Ino != b.Ino {
		t.Error("bin/tool and bin/tool-1.0 are not one file")
	}
	for _, l := range []string{"base", "runtime", "app"} {
		r, err := checkLayer(filepath.Join(dir, l))
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Findings) > 0 || r.Marks["opaque"] != map[string]int{"runtime": 1}[l] || r.Marks["whiteout"] != map[string]int{"app": 1}[l] {
			t.Errorf("%s: %+v", l, r)
		}
	}
	before, err := lab.Fingerprint(dir, "base")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := lab.Fingerprint(dir, "base"); err != nil || again != before {
		t.Error("the same directory has two fingerprints", err)
	}
	if err := os.Chmod(filepath.Join(dir, "base/etc/motd"), 0o600); err != nil {
		t.Fatal(err)
	}
	if after, err := lab.Fingerprint(dir, "base"); err != nil || after == before {
		t.Error("a changed mode is not in the fingerprint", err)
	}
}
