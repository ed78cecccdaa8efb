package harness

import (
	"debug/elf"
	"os"
	"os/exec"
	"testing"
)

// Busybox returns a static busybox, for images made from scratch. Without one the test is skipped.
func Busybox(t testing.TB) []byte {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip(err)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	libs, err := f.ImportedLibraries()
	f.Close()
	if err != nil || len(libs) > 0 {
		t.Skipf("%s is not static (package busybox-static): %v", path, libs)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
