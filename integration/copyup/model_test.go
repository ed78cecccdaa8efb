package copyup

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/integration/harness"
)

// modelSide is a tree on which the same is done as on another: a mount, or a plain directory.
type modelSide struct {
	dir  string
	held []*os.File // descriptors that stay open
	data []byte     // what the last operation read
}

// model drives a mount and a plain directory side by side.
type model struct {
	l     *harness.Layers
	t     *testing.T
	plain modelSide
	view  modelSide
	m     *harness.Mount
	flags []string
	// times says that modification times are compared: then every mapping is written back at once.
	times bool
	zero  bool // the filesystem has FALLOC_FL_ZERO_RANGE
	seed  byte
}

// The files of the lower layer, and two names that are free at first.
var modelNames = []string{"small", "odd", "sparse", "sub/aligned", "link", "sub/other", "free", "sub/free"}

const (
	modelTree = "f small something\nF odd 21k\nF sparse 200k\nF sub/aligned 64k\nF link 100k\nh sub/other link"
	modelMax  = 220 << 10
)

// modelTime is a time no operation gives a file by itself.
var modelTime = time.Unix(1_000_000_000, 987654321)

// shapeTree gives the tree an odd end and holes.
func shapeTree(t *testing.T, dir string) {
	must(t, os.Truncate(dir+"/odd", 20<<10+1234))
	fallocate(t, dir+"/sparse", unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 32<<10, 64<<10)
	fallocate(t, dir+"/sparse", unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 130_000, 10_000)
}

// TestModel does random things to the files of a mount and of a plain directory, and compares the two
// byte for byte after each; at the end in the kernel's overlayfs as well. PLYFS_MODEL_CHECKS is how many
// such series there are for each filesystem and mode.
func TestModel(t *testing.T) {
	checks := os.Getenv("PLYFS_MODEL_CHECKS")
	if checks == "" {
		checks = "5"
	}
	for name, value := range map[string]string{"rapid.checks": checks, "rapid.nofailfile": "true"} {
		f := flag.Lookup(name)
		old := f.Value.String()
		must(t, f.Value.Set(value))
		defer func() { _ = f.Value.Set(old) }()
	}
	for _, mode := range []string{"cached", "passthrough"} {
		t.Run(mode, func(t *testing.T) {
			if mode == "passthrough" {
				harness.NeedRoot(t)
			}
			harness.OnFilesystems(t, 512<<20, func(t *testing.T, dir string) {
				w := &model{t: t, l: harness.NewLayersOn(t, dir, modelTree)}
				shapeTree(t, w.l.Lowers[0])
				w.plain.dir = filepath.Join(dir, "plain")
				must(t, os.WriteFile(dir+"/zero", []byte("data"), 0o600))
				w.zero = unix.Fallocate(openFD(t, dir+"/zero"), unix.FALLOC_FL_ZERO_RANGE, 0, 4) == nil
				rapid.Check(t, func(rt *rapid.T) { w.check(rt, mode) })
			})
		})
	}
}

func openFD(t *testing.T, path string) int {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

// check is one series, on an empty upper.
func (w *model) check(rt *rapid.T, mode string) {
	for _, dir := range []string{w.plain.dir, w.l.Upper, w.l.Work} {
		must(w.t, os.RemoveAll(dir))
		must(w.t, os.Mkdir(dir, 0o755))
	}
	harness.Make(w.t, w.plain.dir, modelTree)
	shapeTree(w.t, w.plain.dir)
	w.view.dir = w.l.Mnt
	w.flags = []string{"--mode", mode, "--threshold", "8K", "--settle-budget", "off"}
	kernel := []string{"index=on"}
	if rapid.Bool().Draw(rt, "metacopy") && harness.Root() { // the kernel takes it from root only
		w.flags = append(w.flags, "-o", "metacopy=on")
		kernel = append(kernel, "metacopy=on")
	}
	if mode == "cached" && rapid.IntRange(0, 3).Draw(rt, "writeback") == 0 {
		w.flags = append(w.flags, "-o", "writeback=1")
	}
	w.times = rapid.Bool().Draw(rt, "times") && !slices.Contains(w.flags, "writeback=1")
	w.mount(rt)
	defer func() {
		w.release()
		w.m.Close(w.t)
	}()
	rt.Repeat(w.actions())
	w.release()
	w.m.Close(w.t)
	if marked(w.l) { // the last mount was one that leaves unfinished files
		w.m = w.l.Plyfs(w.t, w.flags...)
		w.compare(rt, "mounted again")
		w.m.Close(w.t)
	}
	if left := unfinished(w.t, w.l.Upper); len(left) > 0 || marked(w.l) {
		rt.Fatalf("unfinished after the unmount: %v, marked: %v", left, marked(w.l))
	}
	k := w.l.Kernel(w.t, kernel...)
	defer k.Close(w.t)
	w.compare(rt, "in the kernel")
}

func (w *model) mount(rt *rapid.T) {
	flags := w.flags
	if rapid.Bool().Draw(rt, "no settle") {
		flags = append(slices.Clone(flags), "--no-settle")
	}
	w.m = w.l.Plyfs(w.t, flags...)
}

// release closes the descriptors that stay open.
func (w *model) release() {
	for _, s := range []*modelSide{&w.plain, &w.view} {
		for _, f := range s.held {
			f.Close()
		}
		s.held = nil
	}
}

// both does the same on both sides: it must end alike, and read the same.
func (w *model) both(rt *rapid.T, f func(s *modelSide) error) {
	w.plain.data, w.view.data = nil, nil
	want, got := errnoOf(f(&w.plain)), errnoOf(f(&w.view))
	if want != got {
		rt.Fatalf("in the view: %v, in the plain directory: %v", got, want)
	}
	if i := firstDiff(w.view.data, w.plain.data); i >= 0 {
		rt.Fatalf("in the view it read %d bytes, in the plain directory %d; they differ at %d", len(w.view.data), len(w.plain.data), i)
	}
}

func errnoOf(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// name draws a name, more often one that the lower layer has a large file under.
func (w *model) name(rt *rapid.T, label string) string {
	return rapid.SampledFrom(append(modelNames[1:6:6], modelNames...)).Draw(rt, label)
}

// file does the same to a file of each side, opened now or long ago.
func (w *model) file(rt *rapid.T, flags int, f func(s *modelSide, file *os.File) error) {
	if flags&unix.O_DIRECT == 0 && len(w.plain.held) > 0 && rapid.Bool().Draw(rt, "held") {
		i := rapid.IntRange(0, len(w.plain.held)-1).Draw(rt, "which")
		w.both(rt, func(s *modelSide) error { return f(s, s.held[i]) })
		return
	}
	name := w.name(rt, "name")
	w.both(rt, func(s *modelSide) error {
		file, err := os.OpenFile(filepath.Join(s.dir, name), flags|os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer file.Close()
		return f(s, file)
	})
}

// offset draws places that matter: around blocks, and anywhere.
func (w *model) offset(rt *rapid.T, label string) int64 {
	block := rapid.Int64Range(0, modelMax>>12-3).Draw(rt, label+" block") << 12
	return block + rapid.SampledFrom([]int64{0, 0, 1, 100, 4095, 2048}).Draw(rt, label+" in block")
}

func (w *model) length(rt *rapid.T) int64 {
	return rapid.SampledFrom([]int64{1, 10, 4095, 4096, 4097, 3 << 12, 10<<12 + 5}).Draw(rt, "length")
}

// bytes returns n bytes that no other operation writes, sometimes zeros.
func (w *model) bytes(rt *rapid.T, n int64) []byte {
	b := aligned(int(n))
	if rapid.IntRange(0, 5).Draw(rt, "zeros") > 0 {
		w.seed++
		for i := range b {
			b[i] = byte(i) ^ byte(i>>8) ^ w.seed | 1
		}
	}
	return b
}

// compare looks at all of both trees.
func (w *model) compare(rt *rapid.T, when string) {
	for _, dir := range []string{"", "sub"} {
		if want, got := listing(w.t, w.plain.dir, dir), listing(w.t, w.view.dir, dir); want != got {
			rt.Fatalf("%s: %q lists %q, want %q", when, dir, got, want)
		}
	}
	for _, name := range modelNames {
		want, got := w.look(&w.plain, name), w.look(&w.view, name)
		if want != got {
			rt.Fatalf("%s: %s:\n  %s\nin the plain directory:\n  %s", when, name, got, want)
		}
		a, aerr := os.ReadFile(filepath.Join(w.plain.dir, name))
		b, berr := os.ReadFile(filepath.Join(w.view.dir, name))
		if errnoOf(aerr) != errnoOf(berr) {
			rt.Fatalf("%s: %s: %v, in the plain directory: %v", when, name, berr, aerr)
		}
		if !bytes.Equal(a, b) {
			rt.Fatalf("%s: %s: %d bytes, want %d; they differ at %d", when, name, len(b), len(a), firstDiff(a, b))
		}
	}
}

func listing(t *testing.T, root, dir string) string {
	ents, err := os.ReadDir(filepath.Join(root, dir))
	must(t, err)
	var names []string
	for _, e := range ents {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// look describes a file without its contents.
func (w *model) look(s *modelSide, name string) string {
	path := filepath.Join(s.dir, name)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err.Error()
	}
	text := fmt.Sprintf("mode %o, owner %d:%d, %d links, %d bytes", st.Mode, st.Uid, st.Gid, st.Nlink, st.Size)
	for _, attr := range []string{"user.a", "user.b"} {
		var v [64]byte
		if n, err := unix.Lgetxattr(path, attr, v[:]); err == nil {
			text += fmt.Sprintf(", %s=%q", attr, v[:n])
		} else if err != unix.ENODATA {
			text += ", " + attr + ": " + err.Error()
		}
	}
	if w.times {
		text += fmt.Sprintf(", time set: %v", time.Unix(st.Mtim.Sec, st.Mtim.Nsec).Equal(modelTime))
	}
	return text
}

// holes checks what the view says of data and holes: what a hole covers is zero.
func (w *model) holes(rt *rapid.T, name string, off int64) {
	want, err := os.ReadFile(filepath.Join(w.plain.dir, name))
	if err != nil {
		return
	}
	f, err := os.Open(filepath.Join(w.view.dir, name))
	must(w.t, err)
	defer f.Close()
	size := int64(len(want))
	for off < size {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			data = size
		} else if err != nil || data < off || data >= size {
			rt.Fatalf("data from %d of %d: %d, %v", off, size, data, err)
		}
		for i := off; i < data; i++ {
			if want[i] != 0 {
				rt.Fatalf("the hole %d .. %d is not zero at %d", off, data, i)
			}
		}
		if data == size {
			return
		}
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil || hole <= data || hole > size {
			rt.Fatalf("hole from %d of %d: %d, %v", data, size, hole, err)
		}
		off = hole
	}
}

// readDirect reads all of a file past the page cache.
func readDirect(file *os.File, into *[]byte) error {
	for off := int64(0); ; {
		b := aligned(64 << 10)
		n, err := file.ReadAt(b, off)
		*into = append(*into, b[:n]...)
		off += int64(n)
		if err == io.EOF || n == 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
