package layer

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
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

// grow makes the stack of its goroutine larger, which moves it.
func grow(n int) byte {
	var b [512]byte
	if n > 0 {
		b[n%512] = grow(n - 1)
	}
	return b[n%256]
}

// The kernel writes into the caller's buffer, also when that is on a stack that is about to
// grow.
func TestXattrOnSmallStacks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(file, "user.name", []byte("value"), 0); err != nil {
		t.Skip(err)
	}
	fd, err := unix.Open(filepath.Dir(file), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	bad := make(chan string, 1)
	var wg sync.WaitGroup
	for i := range 3000 {
		wg.Go(func() { // each has a new, small stack, used to a different depth
			_ = grow(i % 12)
			var buf [64]byte
			n, err := Getxattr(fd, "file", "user.name", buf[:])
			names, lerr := Listxattr(fd, "file")
			if err != nil || string(buf[:n]) != "value" || lerr != nil || !slices.Contains(names, "user.name") {
				select {
				case bad <- fmt.Sprintf("%q %v, %q %v", buf[:n], err, names, lerr):
				default:
				}
			}
		})
	}
	wg.Wait()
	select {
	case what := <-bad:
		t.Error(what)
	default:
	}
}
