package layer

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Directories of a layer are open with O_PATH, which the xattrat calls refuse for the
// object itself.
func TestXattrOfPathDescriptor(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, file} {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := Setxattr(fd, "", "user.a", []byte("1"), 0); err != nil {
			if err == unix.EOPNOTSUPP {
				t.Skip("no user attributes here")
			}
			t.Fatalf("%s: set: %v", path, err)
		}
		if b, err := GetxattrAll(fd, "", "user.a"); err != nil || string(b) != "1" {
			t.Errorf("%s: get: %q, %v", path, b, err)
		}
		if names, err := Listxattr(fd, ""); err != nil || len(names) == 0 {
			t.Errorf("%s: list: %q, %v", path, names, err)
		}
		if err := Removexattr(fd, "", "user.a"); err != nil {
			t.Errorf("%s: remove: %v", path, err)
		}
	}
}
