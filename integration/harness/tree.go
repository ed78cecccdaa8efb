package harness

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Make makes a tree from lines of text, parents included. Blank lines and indentation do not count.
//
//	d DIR                  a directory
//	o DIR                  an opaque directory
//	f FILE CONTENT         a file; the rest of the line, Go escapes understood
//	F FILE SIZE            a file of so many bytes (4k, 1M) that differ from block to block
//	l NAME TARGET          a symbolic link
//	h NAME OTHER           a hard link to a file made before
//	p NAME                 a fifo
//	c NAME MAJOR MINOR     a character device
//	w NAME                 a whiteout
//	m NAME MODE            changes a mode (octal)
//	u NAME UID GID         changes the owner; left out where there is no such owner, see [Owners]
//	x NAME ATTR VALUE      sets an extended attribute
//
// Overlay marks (o, and x with trusted.overlay.) are written where plyfs and the kernel look for them: in
// user.overlay. for an ordinary user. A test whose tree only root can make is skipped for anybody else.
func Make(t testing.TB, dir, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		err := makeLine(dir, line)
		if errors.Is(err, unix.EPERM) && !Root() {
			mustNot(t, fmt.Sprintf("needs root: %q: %v", line, err))
		}
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
	}
}

func makeLine(dir, line string) error {
	f := strings.SplitN(line, " ", 3)
	if len(f) < 2 {
		return fmt.Errorf("too short")
	}
	path, rest := filepath.Join(dir, f[1]), ""
	if len(f) > 2 {
		rest = f[2]
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	num := func(s string, base int) int {
		n, err := strconv.ParseInt(s, base, 32)
		if err != nil {
			panic(err)
		}
		return int(n)
	}
	args := strings.Fields(rest)
	switch f[0] {
	case "d":
		return os.MkdirAll(path, 0o755)
	case "o":
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		return unix.Lsetxattr(path, Mark("opaque"), []byte("y"), 0)
	case "f":
		if s, err := strconv.Unquote(`"` + rest + `"`); err == nil {
			rest = s
		}
		return os.WriteFile(path, []byte(rest), 0o644)
	case "F":
		return os.WriteFile(path, Bytes(Size(rest)), 0o644)
	case "l":
		return os.Symlink(rest, path)
	case "h":
		return os.Link(filepath.Join(dir, rest), path)
	case "p":
		return unix.Mkfifo(path, 0o644)
	case "c":
		return unix.Mknod(path, unix.S_IFCHR|0o644, int(unix.Mkdev(uint32(num(args[0], 10)), uint32(num(args[1], 10)))))
	case "w":
		return unix.Mknod(path, unix.S_IFCHR, 0)
	case "m":
		return unix.Chmod(path, uint32(num(rest, 8)))
	case "u":
		err := os.Lchown(path, num(args[0], 10), num(args[1], 10))
		if errors.Is(err, unix.EINVAL) && !Root() {
			return nil
		}
		return err
	case "x":
		attr := args[0]
		if name, ok := strings.CutPrefix(attr, "trusted.overlay."); ok {
			attr = Mark(name)
		}
		return unix.Lsetxattr(path, attr, []byte(strings.Join(args[1:], " ")), 0)
	}
	return fmt.Errorf("what is %q?", f[0])
}

// Size reads "4k", "1M", "2G" or a plain number of bytes.
func Size(s string) int64 {
	shift := 0
	switch s[len(s)-1] {
	case 'k':
		shift = 10
	case 'M':
		shift = 20
	case 'G':
		shift = 30
	}
	if shift > 0 {
		s = s[:len(s)-1]
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n << shift
}

// Bytes returns n bytes of which no two blocks are alike.
func Bytes(n int64) []byte {
	b := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range b {
		if i%8 == 0 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
		b[i] = byte(x >> (8 * (i % 8)))
	}
	return b
}

// Dump describes everything below dir, a sorted line per object: type, mode, owner, links and which
// name is the same file, size, contents, target, device and extended attributes. Overlay marks are left out. Modification times
// are in it with times.
func Dump(t testing.TB, dir string, times bool) []string {
	t.Helper()
	var out []string
	first := map[[2]uint64]string{} // the first name of what has several
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		line, err := describe(dir, path, times, first)
		out = append(out, line)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(out)
	return out
}

// Marks lists the overlay marks that everything below dir shows, sorted: in a view these are those of other
// unions, whose layers are in it.
func Marks(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		for _, name := range xattrs(path) {
			val := make([]byte, 64<<10)
			if n, err := unix.Lgetxattr(path, name, val); isMark(name) {
				out = append(out, fmt.Sprintf("%q %s=%q %v", rel, name, val[:max(n, 0)], err))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(out)
	return out
}

// Mark returns the name of the attribute that an overlay mark is for whoever runs the tests.
func Mark(name string) string {
	if Root() {
		return "trusted.overlay." + name
	}
	return "user.overlay." + name
}

func isMark(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
}

func describe(root, path string, times bool, first map[[2]uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	rel, _ := filepath.Rel(root, path)
	var b strings.Builder
	fmt.Fprintf(&b, "%q mode=%06o uid=%d gid=%d", rel, st.Mode, st.Uid, st.Gid)
	if times {
		fmt.Fprintf(&b, " mtime=%d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return "", err
		}
		fmt.Fprintf(&b, " links=%d size=%d sum=%s", st.Nlink, st.Size, hex.EncodeToString(h.Sum(nil)[:8]))
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, " links=%d target=%q", st.Nlink, target)
	case unix.S_IFIFO, unix.S_IFSOCK:
		fmt.Fprintf(&b, " links=%d", st.Nlink)
	case unix.S_IFCHR, unix.S_IFBLK:
		fmt.Fprintf(&b, " links=%d dev=%d:%d", st.Nlink, unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	if id := [2]uint64{st.Dev, st.Ino}; st.Mode&unix.S_IFMT != unix.S_IFDIR && first[id] != "" {
		fmt.Fprintf(&b, " is=%q", first[id])
	} else {
		first[id] = rel
	}
	for _, name := range Xattrs(path) {
		val := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, val)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, " %s=%q", name, val[:n])
	}
	return b.String(), nil
}

// Xattrs lists the extended attributes of path that are no overlay marks, sorted.
func Xattrs(path string) []string {
	return slices.DeleteFunc(xattrs(path), isMark)
}

func xattrs(path string) []string {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil || n == 0 {
		return nil
	}
	out := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	sort.Strings(out)
	return out
}
