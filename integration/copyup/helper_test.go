package copyup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// Unless a test is about it, nobody but the test completes files.
var manual = []string{"--settle-budget", "off", "--no-settle"}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sameBytes compares a file with what it should be.
func sameBytes(t testing.TB, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	must(t, err)
	same(t, path, got, want)
}

func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d bytes, want %d", what, len(got), len(want))
	}
	if i := firstDiff(got, want); i >= 0 {
		t.Fatalf("%s: byte %d is %#x, want %#x", what, i, got[i], want[i])
	}
}

func firstDiff(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// writeAt writes to a file and to what it should be.
func writeAt(t testing.TB, path string, want []byte, data string, off int) []byte {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte(data), int64(off))
	must(t, err)
	return put(want, []byte(data), off)
}

func put(want, data []byte, off int) []byte {
	if n := off + len(data) - len(want); n > 0 {
		want = append(want, make([]byte, n)...)
	}
	copy(want[off:], data)
	return want
}

// aligned returns n bytes at a page's start, for O_DIRECT.
func aligned(n int) []byte {
	b := make([]byte, n+4096)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & 4095
	return b[skip : skip+n]
}

// used returns the space of a file in bytes.
func used(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return st.Blocks * 512
}

// stream reads the copy-ups of a mount from now on.
type stream struct {
	dir    string
	cursor string
}

func events(t testing.TB, m *harness.Mount) *stream {
	t.Helper()
	s := &stream{dir: m.Dir}
	s.next(t)
	return s
}

// next returns what happened since the last call.
func (s *stream) next(t testing.TB) []cow.Event {
	t.Helper()
	var all []cow.Event
	for {
		buf := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(s.dir, "plyfs.events."+s.cursor, buf)
		must(t, err)
		var page struct {
			Cursor string      `json:"cursor"`
			Events []cow.Event `json:"events"`
		}
		must(t, json.Unmarshal(buf[:n], &page))
		first := s.cursor == ""
		s.cursor = page.Cursor
		if all = append(all, page.Events...); len(page.Events) == 0 || first {
			return all
		}
	}
}

// only returns the events of a path, without those of its parents.
func (s *stream) only(t testing.TB, path string) []cow.Event {
	t.Helper()
	var out []cow.Event
	for _, ev := range s.next(t) {
		if ev.Path == path {
			out = append(out, ev)
		}
	}
	return out
}

func settle(t testing.TB, m *harness.Mount) {
	t.Helper()
	if out, err := harness.Run("settle", m.Dir); err != nil {
		t.Fatalf("settle: %v\n%s", err, out)
	}
}

// unfinished returns the names in an upper that have a record.
func unfinished(t testing.TB, upper string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(upper, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if _, err := unix.Lgetxattr(path, harness.Mark("plyfs"), nil); err == nil {
			rel, _ := filepath.Rel(upper, path)
			out = append(out, rel)
		} else if !errors.Is(err, unix.ENODATA) {
			return err
		}
		return nil
	})
	must(t, err)
	return out
}

// marked says whether the kernel is kept from the upper.
func marked(l *harness.Layers) bool {
	_, err := os.Stat(l.Work + "/work/incompat/plyfs-partial")
	return err == nil
}

// kernelRefuses fails unless the kernel's overlayfs does not mount the upper.
func kernelRefuses(t testing.TB, l *harness.Layers) {
	t.Helper()
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", strings.Join(l.Lowers, ":"), l.Upper, l.Work)
	if !harness.Root() {
		opts += ",userxattr"
	}
	if err := unix.Mount("overlay", l.Mnt, "overlay", 0, opts); err == nil {
		_ = unix.Unmount(l.Mnt, 0)
		t.Fatal("the kernel mounted an upper with unfinished files")
	}
}

func itoa(n int) string { return fmt.Sprint(n) }
