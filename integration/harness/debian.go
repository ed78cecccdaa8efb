package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Real skips the test unless PLYFS_REAL=1 and it runs as root: tests whose name has "Real" in it work on whole systems, with
// Debian's packages, for minutes (make test-real).
func Real(t testing.TB) {
	t.Helper()
	if os.Getenv("PLYFS_REAL") != "1" {
		t.Skip("takes minutes: make test-real")
	}
	NeedRoot(t)
}

var debianOnce = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(os.TempDir(), "debian")
	out, err := exec.Command("debootstrap", "--variant=minbase", "bookworm", dir).CombinedOutput()
	if err != nil {
		return string(out), err
	}
	return dir, nil
})

// Debian returns a Debian root filesystem, made once for a package's tests, which nobody may change. Where Real skips, so does it.
func Debian(t testing.TB) string {
	t.Helper()
	Real(t)
	dir, err := debianOnce()
	if err != nil {
		t.Fatalf("debootstrap: %v\n%s", err, dir)
	}
	return dir
}
