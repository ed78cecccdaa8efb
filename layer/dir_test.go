package layer

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer/layertest"
)

func openTree(t *testing.T, limit int, o TreeOptions) (*Tree, string) {
	t.Helper()
	dir := t.TempDir()
	tree, err := OpenTree(dir, 1, NewCache(limit), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree, dir
}

// The cache keeps so many descriptors and no more, whoever asks at the same time, and what is forgotten can be
// opened again.
func TestDirCache(t *testing.T) {
	const dirs, limit = 40, 4
	tree, dir := openTree(t, limit, TreeOptions{})
	var all []*Dir
	for i := range dirs {
		name := string(rune('a'+i/26)) + string(rune('a'+i%26))
		if err := os.MkdirAll(filepath.Join(dir, name, "deep"), 0o755); err != nil {
			t.Fatal(err)
		}
		all = append(all, tree.Root.Child(name).Child("deep"))
	}
	before := len(layertest.OpenBelow(t, dir))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, d := range all {
				fd, err := d.FD()
				if err != nil {
					t.Error(err)
					return
				}
				var st unix.Statx_t
				if err := Stat(fd, "", &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
					t.Errorf("%s: %v", d.Path(), err)
				}
				d.Done()
			}
		})
	}
	wg.Wait()
	if n := len(layertest.OpenBelow(t, dir)) - before; n > limit+2 {
		t.Errorf("%d descriptors are kept, the limit is %d", n, limit)
	}
	for _, d := range all {
		d.Forget()
		if fd, err := d.FD(); err != nil || fd < 0 {
			t.Fatal(err)
		}
		d.Done()
		d.Forget()
	}
}

// A descriptor in use outlives Forget and a crowd of others.
func TestDirPinned(t *testing.T) {
	tree, dir := openTree(t, 1, TreeOptions{})
	for _, name := range []string{"a", "b", "c"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	a := tree.Root.Child("a")
	fd, err := a.FD()
	if err != nil {
		t.Fatal(err)
	}
	a.Forget()
	for _, name := range []string{"b", "c"} {
		d := tree.Root.Child(name)
		if _, err := d.FD(); err != nil {
			t.Fatal(err)
		}
		d.Done()
	}
	if err := Mkdir(fd, "made", 0o755); err != nil {
		t.Errorf("a pinned descriptor was closed: %v", err)
	}
	a.Done()
	if _, err := os.Stat(filepath.Join(dir, "a/made")); err != nil {
		t.Error(err)
	}
}

// Whoever uses a directory that was forgotten meanwhile does not keep others waiting for it.
func TestDirForgottenInUse(t *testing.T) {
	tree, dir := openTree(t, 0, TreeOptions{})
	if err := os.Mkdir(filepath.Join(dir, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	a := tree.Root.Child("a")
	first, err := a.FD()
	if err != nil {
		t.Fatal(err)
	}
	a.Forget()
	second, err := a.FD() // would wait for ever
	if err != nil || second != first {
		t.Errorf("%d, %v; was %d", second, err, first)
	}
	a.Done()
	a.Done()
	a.Forget()
	if _, err := unix.FcntlInt(uintptr(first), unix.F_GETFD, 0); err != unix.EBADF {
		t.Errorf("the descriptor of a directory that nobody uses: %v", err)
	}
}

// After a rename a directory is reached by its new name.
func TestDirRename(t *testing.T) {
	tree, dir := openTree(t, 0, TreeOptions{})
	for _, name := range []string{"a/sub", "b"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	a, b := tree.Root.Child("a"), tree.Root.Child("b")
	sub := a.Child("sub")
	err := tree.cache.Rename(func() error {
		return os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b/new"))
	}, Moved{a, b, "new"}, Moved{})
	if err != nil || sub.Path() != "b/new/sub" {
		t.Fatalf("%v, %s", err, sub.Path())
	}
	if _, err := sub.FD(); err != nil {
		t.Error(err)
	} else {
		sub.Done()
	}
	if err := tree.cache.Rename(func() error { return unix.EXDEV }, Moved{a, b, "other"}); err != unix.EXDEV || a.Path() != "b/new" {
		t.Errorf("a rename that failed: %v, %s", err, a.Path())
	}
}

// A symbolic link in a layer is never followed: not when it takes the place of a directory that is known, nor as the
// last name of any operation.
func TestNoLinkIsFollowed(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o644); err != nil {
		t.Fatal(err)
	}
	tree, dir := openTree(t, 0, TreeOptions{})
	if err := os.MkdirAll(filepath.Join(dir, "d/e"), 0o755); err != nil {
		t.Fatal(err)
	}
	d := tree.Root.Child("d")
	if _, err := d.FD(); err != nil {
		t.Fatal(err)
	}
	d.Done()
	d.Forget()
	if err := os.Rename(filepath.Join(dir, "d"), filepath.Join(dir, "old")); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"d": outside, "up": "..", "file": filepath.Join(outside, "secret")} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []*Dir{d, d.Child("e"), tree.Root.Child("up"), tree.Root.Child("file")} {
		if _, err := bad.FD(); err != unix.ENOTDIR && err != unix.ELOOP {
			t.Errorf("%s: %v, want ENOTDIR", bad.Path(), err)
		}
	}
	root, err := tree.Root.FD()
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Root.Done()
	if _, err := Open(root, "file", unix.O_RDONLY, 0); err != unix.ELOOP {
		t.Errorf("open: %v, want ELOOP", err)
	}
	var st unix.Statx_t
	if err := Stat(root, "file", &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Errorf("stat: %o, %v", st.Mode, err)
	}
	if err := Chmod(root, "file", 0o777); err == nil {
		t.Error("chmod of a link")
	}
	if err := Setxattr(root, "file", "user.a", []byte("1"), 0); err == nil {
		t.Error("setxattr of a link")
	}
	_ = Chown(root, "file", os.Getuid(), os.Getgid())
	_ = Utimens(root, "file", &[2]unix.Timespec{{Sec: 1}, {Sec: 1}})
	if err := RemoveAll(root, "d"); err != nil {
		t.Error(err)
	}
	fi, err := os.Stat(filepath.Join(outside, "secret"))
	if err != nil || fi.Mode().Perm() != 0o644 || fi.ModTime().Unix() == 1 {
		t.Errorf("what a link points to was changed: %v, %v", fi, err)
	}
}

func TestRemoveAll(t *testing.T) {
	tree, dir := openTree(t, 0, TreeOptions{})
	deep := filepath.Join(dir, "a/b/c/d")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"a/f", "a/b/c/d/g"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"a/b/c/d", "a/b"} {
		if err := os.Chmod(filepath.Join(dir, d), 0); err != nil {
			t.Fatal(err)
		}
	}
	root, err := tree.Root.FD()
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Root.Done()
	for range 2 { // the second time there is nothing
		if err := RemoveAll(root, "a"); err != nil {
			t.Fatal(err)
		}
	}
	if entries, err := ReadDir(root); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

// Probe leaves nothing, and removes what a killed one left.
func TestProbe(t *testing.T) {
	tree, dir := openTree(t, 0, TreeOptions{})
	if err := os.MkdirAll(filepath.Join(dir, probePrefix+"2/x"), 0o755); err != nil {
		t.Fatal(err)
	}
	var a Abilities
	for _, all := range []bool{false, true} {
		quick := a
		var err error
		if a, err = Probe(tree.Root, all); err != nil {
			t.Fatal(err)
		}
		if !a.Hardlinks || a.RenameExchange != all {
			t.Errorf("this filesystem can do %v", a)
		}
		if all && (a.XattrTrusted != quick.XattrTrusted || a.WhiteoutDev != quick.WhiteoutDev || a.RenameWhiteout != quick.RenameWhiteout) {
			t.Errorf("can do %v, and quickly tried %v", a, quick)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("left: %v, %v", entries, err)
		}
	}
	for _, name := range []string{"hard-links", "tmpfile", "acl"} {
		if !strings.Contains(a.String(), name) {
			t.Errorf("%s is not in %q", name, a)
		}
	}
}

// A private tree does not see what is mounted over parts of it later, and cannot be written.
func TestPrivateTree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	tree, dir := openTree(t, 0, TreeOptions{Private: true})
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("t", dir, "tmpfs", 0, ""); err != nil {
		t.Skip(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	root, err := tree.Root.FD()
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Root.Done()
	var st unix.Statx_t
	if err := Stat(root, "f", &st); err != nil {
		t.Errorf("what was there is gone: %v", err)
	}
	if err := Mkdir(root, "d", 0o755); err != unix.EROFS {
		t.Errorf("writing: %v, want EROFS", err)
	}
}

func TestOpenTreeErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{"f": unix.ENOTDIR, "no": unix.ENOENT} {
		for _, private := range []bool{false, true} {
			if tree, err := OpenTree(filepath.Join(dir, path), 1, NewCache(1), TreeOptions{Private: private}); err != want {
				t.Errorf("%s: %v, %v", path, tree, err)
			}
		}
	}
}

// WithCreds changes the ids of one call and of nothing else, whatever the call does.
func TestWithCreds(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	tree, _ := openTree(t, 0, TreeOptions{})
	root, err := tree.Root.FD()
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Root.Done()
	ownerOf := func(name string) (uint32, uint32) {
		var st unix.Statx_t
		if err := Stat(root, name, &st); err != nil {
			t.Fatal(err)
		}
		return st.Uid, st.Gid
	}
	if err := WithCreds(5, 6, func() error { return Mkdir(root, "theirs", 0o700) }); err != nil {
		t.Fatal(err)
	}
	if u, g := ownerOf("theirs"); u != 5 || g != 6 {
		t.Errorf("made by %d:%d", u, g)
	}
	// It may do all that this process may.
	if err := Mkdir(root, "ours", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WithCreds(5, 6, func() error { return Mknod(root, "ours/x", unix.S_IFCHR, 0) }); err != nil {
		t.Errorf("in a directory of root: %v", err)
	}
	if err := WithCreds(5, 6, func() error { return unix.EXDEV }); err != unix.EXDEV {
		t.Errorf("the error of the call: %v", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was lost")
			}
		}()
		_ = WithCreds(5, 6, func() error { panic("in the call") })
	}()
	// This goroutine, wherever it runs, is itself again.
	for i := range 50 {
		name := "after" + string(rune('0'+i))
		if err := Mkdir(root, name, 0o700); err != nil {
			t.Fatal(err)
		}
		if u, g := ownerOf(name); u != 0 || g != 0 {
			t.Fatalf("after a panic objects belong to %d:%d", u, g)
		}
	}
}
