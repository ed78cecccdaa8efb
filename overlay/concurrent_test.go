package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/whiteout"
)

// Everything at once on few names, by many, directly on the union: without the kernel, which holds a lock on a
// directory for each change. Nobody gets an error that no order of the operations could give; afterwards every name
// resolves, an inode has as many links as names, nothing is left that nobody refers to, and a fresh union over the same
// layers shows the same tree.
func TestConcurrently(t *testing.T) {
	defer func(n int) { cachedDirs = n }(cachedDirs)
	cachedDirs = 4
	for name, change := range map[string]func(c *Config){
		"plain":    func(*Config) {},
		"metacopy": func(c *Config) { c.Metacopy = On },
		"indexed":  func(c *Config) { c.Index = On },
		"parted":   func(c *Config) { c.Index = Off },
		"user":     func(c *Config) { c.UserXattr = On },
	} {
		t.Run(name, func(t *testing.T) {
			w := newCrowd(t, change)
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			var workers sync.WaitGroup
			for i := range 8 {
				workers.Go(func() {
					m := &member{crowd: w, rnd: rand.New(rand.NewPCG(seed, uint64(i)))}
					for range 300 {
						m.act()
					}
				})
			}
			workers.Wait()
			before := w.dump()
			if n := w.fs.Stat().Nodes; n != 1 {
				t.Errorf("%d nodes are left when all but the root are forgotten", n)
			}
			w.close()
			w.open()
			if after := w.dump(); !slices.Equal(before, after) {
				t.Errorf("before and after (-, +) in a fresh union:\n%s", cmp.Diff(before, after))
			}
			w.close()
		})
	}
}

// crowd is a union that many use at once.
type crowd struct {
	t   *testing.T
	cfg Config
	fs  *FS
}

const (
	crowdChunk = 512
	crowdFar   = 24 << 10 // of a chunk besides the first
)

func newCrowd(t *testing.T, change func(c *Config)) *crowd {
	t.Helper()
	dir := t.TempDir()
	w := &crowd{t: t, cfg: DefaultConfig()}
	c := &w.cfg
	c.Lowers = []string{dir + "/top", dir + "/bottom"}
	c.Upper, c.Work = dir+"/upper", dir+"/work"
	c.Threshold, c.SettleBudget, c.Log = 16<<10, -1, t.Logf
	change(c)
	err := errors.Join(os.Mkdir(c.Upper, 0o755), os.Mkdir(c.Work, 0o755))
	for i, lower := range c.Lowers {
		for _, d := range []string{"", "a", "b", "b/a", "c/c"} {
			err = errors.Join(err, os.MkdirAll(filepath.Join(lower, d), 0o755))
		}
		for j, f := range []string{"d", "e", "a/a", "a/d", "b/e", "b/a/f", "c/c/d"} {
			size := crowdChunk
			if j > 2 {
				size = 40 << 10
			}
			if (i+j)%3 > 0 {
				err = errors.Join(err, os.WriteFile(filepath.Join(lower, f), bytes.Repeat([]byte("o"), size), 0o644))
			}
		}
	}
	// Of what the top layer does not hide.
	for from, names := range map[string][]string{"c/c/d": {"f", "a/f"}, "d": {"b/f", "c/e"}} {
		for _, name := range names {
			err = errors.Join(err, os.Link(c.Lowers[1]+"/"+from, c.Lowers[1]+"/"+name))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	w.open()
	return w
}

func (w *crowd) open() {
	w.t.Helper()
	fs, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.fs = fs
}

func (w *crowd) close() {
	w.t.Helper()
	if err := w.fs.Close(); err != nil {
		w.t.Error(err)
	}
}

// dump describes the tree, and says what is wrong with it.
func (w *crowd) dump() []string {
	w.t.Helper()
	names := map[uint64]int{}
	links := map[uint64]uint32{}
	var lines []string
	var walk func(n *Node, path string)
	walk = func(n *Node, path string) {
		err := w.fs.each(&Caller{}, n, func(e *Entry) error {
			at := path + "/" + e.Name
			var a Attr
			child, err := w.fs.Lookup(nil, n, e.Name, &a)
			if err != nil {
				w.t.Errorf("%s is listed, its lookup: %v", at, err)
				return nil
			}
			defer w.fs.unref(child, 1)
			if e.Ino != a.Ino || e.Type != uint8(a.Mode>>12) {
				w.t.Errorf("%s: listed as inode %#x of type %d, is %#x of type %d", at, e.Ino, e.Type, a.Ino, a.Mode>>12)
			}
			line := fmt.Sprintf("%s %o %#x", at, a.Mode, a.Ino)
			if child.isDir() {
				if w.fs.ns == whiteout.User { // see moves.go: what was moved becomes the upper's own
					line = fmt.Sprintf("%s %o", at, a.Mode)
				}
				lines = append(lines, line)
				walk(child, at)
				return nil
			}
			names[a.Ino]++
			links[a.Ino] = a.Nlink
			if w.fs.ns == whiteout.User && w.cfg.Index == Off { // then the names of what was in it part
				line = fmt.Sprintf("%s %o", at, a.Mode)
			} else {
				line = fmt.Sprintf("%s links %d", line, a.Nlink)
			}
			lines = append(lines, line+" "+w.contents(child, at))
			return nil
		})
		if err != nil {
			w.t.Errorf("%s: %v", path, err)
		}
	}
	walk(w.fs.root, "")
	for ino, n := range links {
		if w.cfg.Index != Off && int(n) != names[ino] {
			w.t.Errorf("inode %#x has %d links and %d names", ino, n, names[ino])
		}
	}
	sort.Strings(lines)
	return lines
}

// contents describes what is in a file or link. A write is seen whole or not at all.
func (w *crowd) contents(n *Node, path string) string {
	w.t.Helper()
	if n.Mode() == unix.S_IFLNK {
		target, err := w.fs.Readlink(n)
		return fmt.Sprint(target, err)
	}
	b := make([]byte, 100<<10)
	got, err := w.fs.ReadAt(n, b, 0)
	if err != nil {
		w.t.Errorf("%s: read: %v", path, err)
	}
	b = b[:got]
	for _, off := range []int{0, crowdFar} {
		chunk := b[min(off, got):min(off+crowdChunk, got)]
		if len(chunk) > 0 && len(bytes.Trim(chunk, string(chunk[:1]))) > 0 {
			w.t.Errorf("%s: a torn write at %d of %d", path, off, got)
		}
	}
	return fmt.Sprintf("%d bytes, %08x", got, crc32.ChecksumIEEE(b))
}

// member is one of the crowd.
type member struct {
	*crowd
	rnd *rand.Rand
}

func (m *member) name() string { return string("abcdef"[m.rnd.IntN(6)]) }

// dir returns a random directory, with a reference; the root if another is not there.
func (m *member) dir() *Node {
	n := m.fs.root
	m.fs.nodes.mu.Lock()
	n.refs++
	m.fs.nodes.mu.Unlock()
	for range m.rnd.IntN(3) {
		var a Attr
		child, err := m.fs.Lookup(nil, n, string("abc"[m.rnd.IntN(3)]), &a)
		if err != nil {
			break
		}
		if !child.isDir() {
			m.fs.unref(child, 1)
			break
		}
		m.fs.unref(n, 1)
		n = child
	}
	return n
}

// act does one thing.
func (m *member) act() {
	fs, rnd := m.fs, m.rnd
	d := m.dir()
	defer fs.unref(d, 1)
	name := m.name()
	var a Attr
	made := func(n *Node, err error) error {
		if err == nil {
			fs.unref(n, 1)
		}
		return err
	}
	var what string
	var err error
	switch rnd.IntN(14) {
	case 0:
		what, err = "mknod", made(fs.Mknod(nil, d, name, unix.S_IFREG|0o644, 0, &a))
	case 1:
		what, err = "mkdir", made(fs.Mkdir(nil, d, name, 0o755, &a))
	case 2:
		what, err = "symlink", made(fs.Symlink(nil, d, name, "nowhere", &a))
	case 3:
		what, err = "unlink", fs.Unlink(nil, d, name)
	case 4:
		what, err = "rmdir", fs.Rmdir(nil, d, name)
	case 5, 6, 7:
		to := m.dir()
		defer fs.unref(to, 1)
		flags := []uint32{0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}[rnd.IntN(5)]
		what, err = "rename", fs.Rename(nil, d, name, to, m.name(), flags)
	case 8:
		what = "readdir"
		err = fs.each(&Caller{}, d, func(*Entry) error { return nil })
	default:
		var n *Node
		if n, err = fs.Lookup(nil, d, name, &a); err != nil {
			what = "lookup"
			break
		}
		defer fs.unref(n, 1)
		what, err = m.use(n)
	}
	switch Errno(err) {
	case 0, unix.ENOENT, unix.EEXIST, unix.ENOTEMPTY, unix.ENOTDIR, unix.EISDIR, unix.EINVAL, unix.EPERM, unix.EXDEV:
	default:
		m.t.Errorf("%s %s: %v", what, name, err)
	}
}

// use does something with a node.
func (m *member) use(n *Node) (what string, err error) {
	fs, rnd := m.fs, m.rnd
	var a Attr
	k := rnd.IntN(6)
	if k < 2 {
		to := m.dir()
		defer fs.unref(to, 1)
		if err = fs.Link(nil, n, to, m.name(), &a); err == nil {
			fs.unref(n, 1)
		}
		return "link", err
	}
	if n.Mode() != unix.S_IFREG && k > 3 || n.Mode() == unix.S_IFLNK {
		k = 2
	}
	switch k {
	case 2:
		return "getattr", fs.Getattr(n, &a)
	case 3:
		return "chmod", fs.Setattr(nil, n, &SetAttr{Mask: SetMode, Mode: 0o700 | rnd.Uint32N(64)}, &a)
	case 4:
		b := bytes.Repeat([]byte{byte('A' + rnd.IntN(26))}, crowdChunk)
		_, err = fs.WriteAt(nil, n, b, []int64{0, crowdFar}[rnd.IntN(2)], false)
		return "write", err
	}
	_, err = fs.ReadAt(n, make([]byte, 100), crowdFar)
	return "read", err
}

// A node that has lost its name gets another one by a lookup, while somebody asks for its attributes.
func TestNameGivenAgain(t *testing.T) {
	w := newCrowd(t, func(*Config) {})
	defer w.close()
	var a Attr
	n, err := w.fs.Lookup(nil, w.fs.root, "d", &a)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.fs.Unlink(nil, w.fs.root, "d"); err != nil {
		t.Fatal(err)
	}
	var asking sync.WaitGroup
	asking.Go(func() {
		for range 1000 {
			var a Attr
			if err := w.fs.Getattr(n, &a); err != nil || a.Nlink != 2 {
				t.Errorf("%d links, %v", a.Nlink, err)
				return
			}
		}
	})
	b, err := w.fs.Lookup(nil, w.fs.root, "b", &a)
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.fs.Lookup(nil, b, "f", &a)
	if err != nil || again != n {
		t.Fatalf("%p, %v, want %p", again, err, n)
	}
	asking.Wait()
	w.fs.unref(b, 1)
	w.fs.unref(n, 2)
}
