package cow

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// world is a lower, an upper and a work directory on one filesystem (or the
// lower on another), with an engine.
type world struct {
	t                  testing.TB
	dir                string
	lower, upper, work *layer.Tree
	e                  *Engine
	cfg                Config // without Log
	logged             []string
}

func newWorld(t testing.TB, dir string, cfg Config) *world {
	return newWorldOn(t, dir, dir, cfg)
}

func newWorldOn(t testing.TB, lowerDir, dir string, cfg Config) *world {
	t.Helper()
	lowerDir, err := os.MkdirTemp(lowerDir, "lower")
	must(t, err)
	dir, err = os.MkdirTemp(dir, "world")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(lowerDir); os.RemoveAll(dir) })
	for _, d := range []string{"upper", "work/work"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	return openWorld(t, lowerDir, dir, cfg)
}

func openWorld(t testing.TB, lowerDir, dir string, cfg Config) *world {
	t.Helper()
	w := &world{t: t, dir: dir}
	cache := layer.NewCache(64)
	open := func(path string, index int) *layer.Tree {
		tree, err := layer.OpenTree(path, index, cache, layer.TreeOptions{})
		must(t, err)
		t.Cleanup(func() { tree.Close() })
		return tree
	}
	w.lower = open(lowerDir, 1)
	w.upper = open(filepath.Join(dir, "upper"), 0)
	w.work = open(filepath.Join(dir, "work/work"), 0)
	cfg.Work = w.work.Root
	cfg.Upper = w.upper.Root
	if cfg.Resolve == nil {
		cfg.Resolve = func(r *Record) (*layer.Dir, string, error) { return w.lower.Root, r.Path, nil }
	}
	if os.Geteuid() != 0 {
		cfg.NS = whiteout.User
	}
	w.cfg = cfg
	cfg.Log = func(format string, args ...any) { w.logged = append(w.logged, fmt.Sprintf(format, args...)) }
	e, err := New(cfg)
	must(t, err)
	t.Cleanup(func() { w.e.Close() })
	w.e = e
	return w
}

// restart replaces the engine as after a kill: nothing of the old one is asked.
func (w *world) restart() {
	w.t.Helper()
	cfg := w.cfg
	cfg.Log = w.e.cfg.Log
	e, err := New(cfg)
	must(w.t, err)
	must(w.t, e.CleanWork())
	w.e.Close()
	w.e = e
}

// leave makes an unfinished file of a lower file without sharing extents.
func (w *world) leave(name string, want *Want) {
	w.t.Helper()
	src := w.source(name)
	w.e.pairOf(&src.Stat).noClone.Store(true)
	if s := w.copyUp(name, want); !s.Partial {
		w.t.Fatalf("%s: copied with method %s", name, s.Method)
	}
}

// partial opens the unfinished file of the upper; the caller closes it.
func (w *world) partial(name string) *Partial {
	w.t.Helper()
	fd, err := unix.Open(w.upperPath(name), unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(w.t, err)
	defer unix.Close(fd)
	p, err := w.e.OpenPartial(fd, name)
	must(w.t, err)
	return p
}

func (w *world) lowerPath(name string) string { return filepath.Join(w.lower.Path, name) }
func (w *world) upperPath(name string) string { return filepath.Join(w.upper.Path, name) }

func (w *world) source(name string) *Source {
	w.t.Helper()
	src := &Source{Dir: w.lower.Root, Name: name, Path: name}
	fd, err := w.lower.Root.FD()
	must(w.t, err)
	defer w.lower.Root.Done()
	must(w.t, layer.Stat(fd, name, &src.Stat))
	return src
}

func (w *world) stage(name string, want *Want) (*Staged, error) {
	w.t.Helper()
	return w.e.Stage(w.source(name), want)
}

// copyUp stages and commits, and returns the closed result.
func (w *world) copyUp(name string, want *Want) *Staged {
	w.t.Helper()
	s, err := w.stage(name, want)
	must(w.t, err)
	w.commit(s, name)
	s.Close()
	return s
}

func (w *world) commit(s *Staged, name string) {
	w.t.Helper()
	fd, err := w.upper.Root.FD()
	must(w.t, err)
	defer w.upper.Root.Done()
	must(w.t, s.Commit(fd, name, false))
}

func (w *world) noLeftovers() {
	w.t.Helper()
	ents, err := os.ReadDir(w.work.Path)
	must(w.t, err)
	for _, ent := range ents {
		if strings.HasPrefix(ent.Name(), stagePrefix) {
			w.t.Errorf("left in the work directory: %s", ent.Name())
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErrno(t testing.TB, err error, errno unix.Errno) {
	t.Helper()
	if !errors.Is(err, errno) {
		t.Fatalf("error %v, want %v", err, errno)
	}
}

func sameContent(t testing.TB, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: %d bytes differ from the wanted %d at %d", path, len(got), len(want), firstDiff(got, want))
	}
}

func firstDiff(a, b []byte) int {
	for i := 0; i < len(a) && i < len(b); i++ {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8) ^ byte(i>>16) ^ seed | 1
	}
	return b
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// filesystem mounts a fresh filesystem of the kind and returns its directory;
// it is gone at the end of the test.
func filesystem(t testing.TB, kind string, mib int, options ...string) string {
	t.Helper()
	mnt, _ := filesystemImage(t, kind, mib, options...)
	return mnt
}

// filesystemImage is filesystem, and returns the image's path too.
func filesystemImage(t testing.TB, kind string, mib int, options ...string) (mnt, img string) {
	t.Helper()
	needRoot(t)
	dir, err := os.MkdirTemp("", "plyfs-cow-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	mnt = filepath.Join(dir, "mnt")
	must(t, os.Mkdir(mnt, 0o755))
	args := []string{"-t", kind}
	switch kind {
	case "ramfs":
		args = append(args, "plyfs-test", mnt)
	case "tmpfs":
		options = append(options, fmt.Sprintf("size=%dm", mib))
		args = append(args, "-o", strings.Join(options, ","), "plyfs-test", mnt)
	default:
		if _, err := exec.LookPath("mkfs." + kind); err != nil {
			t.Skipf("mkfs.%s is not installed", kind)
		}
		img = filepath.Join(dir, "img")
		f, err := os.Create(img)
		must(t, err)
		must(t, f.Truncate(int64(mib)<<20))
		must(t, f.Close())
		flags := map[string][]string{"ext4": {"-q", "-F"}, "xfs": {"-q", "-f"}, "btrfs": {"-q", "-f"}}[kind]
		if out, err := exec.Command("mkfs."+kind, append(flags, img)...).CombinedOutput(); err != nil {
			t.Fatalf("mkfs.%s: %v: %s", kind, err, out)
		}
		args = append(args, "-o", strings.Join(append([]string{"loop"}, options...), ","), img, mnt)
	}
	mountHere(t, kind, mnt, args)
	return mnt, img
}

// mountCopy copies an image as it is on the disk now, and mounts the copy.
func mountCopy(t testing.TB, kind, img string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "plyfs-cow-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	cp, mnt := filepath.Join(dir, "img"), filepath.Join(dir, "mnt")
	must(t, os.Mkdir(mnt, 0o755))
	// The kernel may be writing back meanwhile; a disk that loses power does not
	// show two moments at once. Two copies that are equal show one.
	var last []byte
	for range 20 {
		b, err := os.ReadFile(img)
		must(t, err)
		if last != nil && bytes.Equal(b, last) {
			break
		}
		last = b
	}
	must(t, os.WriteFile(cp, last, 0o600))
	options := "loop"
	if kind == "xfs" {
		options += ",nouuid" // beside the original
	}
	mountHere(t, kind, mnt, []string{"-t", kind, "-o", options, cp, mnt})
	return mnt
}

func mountHere(t testing.TB, kind, mnt string, args []string) {
	t.Helper()
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		if !strings.Contains(string(out), "unknown filesystem") {
			t.Fatalf("mount %v: %v: %s", args, err, out)
		}
		t.Skipf("this kernel does not mount %s", kind)
	}
	t.Cleanup(func() {
		for range 50 { // a descriptor may still be on its way out
			if err := unix.Unmount(mnt, 0); err == nil || err == unix.EINVAL { // EINVAL: gone already
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err := unix.Unmount(mnt, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", mnt, err)
		}
	})
}

var kinds = []string{"ext4", "xfs", "btrfs", "tmpfs"}

// onEach runs f on a fresh filesystem of each kind, as root, and otherwise in
// the temporary directory.
func onEach(t *testing.T, f func(t *testing.T, dir string)) {
	if os.Geteuid() != 0 {
		t.Log("no root: only the temporary directory's filesystem is tried")
		f(t, t.TempDir())
		return
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) { f(t, filesystem(t, kind, 512)) })
	}
}
