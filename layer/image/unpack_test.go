package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/image/imagetest"
	"github.com/plyfs/plyfs/layer/layertest"
	"github.com/plyfs/plyfs/whiteout"
)

func TestMain(m *testing.M) { layertest.Main(m) }

// unpack unpacks an archive into a new directory and checks that the recipe gives it back.
func unpack(t testing.TB, archive []byte, o image.UnpackOptions) (dir string, out *image.Unpacked, err error) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root := openDir(t, dir)
	var recipe bytes.Buffer
	out, err = image.Unpack(context.Background(), bytes.NewReader(archive), root, &recipe, o)
	if err != nil {
		return dir, nil, err
	}
	var again bytes.Buffer
	if err := image.Rebuild(bytes.NewReader(recipe.Bytes()), root, &again); err != nil {
		t.Errorf("rebuild: %v", err)
	} else if !bytes.Equal(again.Bytes(), archive) {
		t.Errorf("the archive of %d bytes came back as another one of %d", len(archive), again.Len())
	}
	return dir, out, nil
}

func openDir(t testing.TB, dir string) int {
	t.Helper()
	layertest.NeedOwner(t)
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// dump describes a tree: a line per object, with everything a layer says of it, marks included.
func dump(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		out = append(out, describe(t, dir, path))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(out)
	return out
}

func describe(t testing.TB, dir, path string) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	rel, _ := filepath.Rel(dir, path)
	s := fmt.Sprintf("%s %o %d:%d", rel, st.Mode, st.Uid, st.Gid)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		s += fmt.Sprintf(" links %d", st.Nlink)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 40 {
			b = []byte(imagetest.Digest(b))
		}
		s += fmt.Sprintf(" %q", b)
	case unix.S_IFLNK:
		to, _ := os.Readlink(path)
		s += " -> " + to
	case unix.S_IFCHR, unix.S_IFBLK:
		s += fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	list, err := layer.Listxattr(unix.AT_FDCWD, path)
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(list)
	for _, attr := range list {
		v, err := layer.GetxattrAll(unix.AT_FDCWD, path, attr)
		if err != nil {
			t.Fatal(err)
		}
		s += fmt.Sprintf(" %s=%q", attr, v)
	}
	if !whiteout.IsWhiteoutDev(st.Mode, unix.Major(st.Rdev), unix.Minor(st.Rdev)) {
		s += fmt.Sprintf(" %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
	}
	return s
}

const stamp = " 1700000000.123456000"

func TestUnpack(t *testing.T) {
	layertest.NeedRoot(t)
	dir, out, err := unpack(t, imagetest.Tar(imagetest.Tree(`
		d .
		m . 711
		d etc
		u etc 1 2
		f etc/passwd root:x:0:0\n
		m etc/passwd 600
		u etc/passwd 7 8
		l etc/link ../../../../outside
		h etc/hard etc/passwd
		d bin
		f bin/su x
		m bin/su 4755
		x bin/su user.note hello
		x bin/su trusted.overlay.redirect /evil
		x bin/su trusted.other kept
		x bin/su security.selinux no
		F big 300k
		p pipe
		c dev 1 3
		o empty
		w gone
		f late/without/parents y
		h sym etc/link
		F zeros 0
	`)), image.UnpackOptions{Below: func(p string) (image.Meta, bool) {
		return image.Meta{Mode: 0o1770, UID: 5, GID: 6, Mtime: 1e9, Xattrs: map[string][]byte{"user.a": []byte("b")}}, p == "late"
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		". 40711 0:0" + stamp,
		"big 100644 0:0 links 1 \"" + imagetest.Digest(imagetest.Tree("F x 300k")[0].Data) + "\"" + stamp,
		"bin 40755 0:0" + stamp,
		`bin/su 104755 0:0 links 1 "x" trusted.other="kept" trusted.overlay.overlay.redirect="/evil" user.note="hello"` + stamp,
		"dev 20644 0:0 links 1 1:3" + stamp,
		`empty 40755 0:0 trusted.overlay.opaque="y"` + stamp,
		"etc 40755 1:2" + stamp,
		`etc/hard 100600 7:8 links 2 "root:x:0:0\n"` + stamp,
		"etc/link 120777 0:0 links 2 -> ../../../../outside" + stamp,
		`etc/passwd 100600 7:8 links 2 "root:x:0:0\n"` + stamp,
		"gone 20000 0:0 links 1 0:0",
		`late 41770 5:6 user.a="b" 1.000000000`,
		"late/without 40755 0:0 0.000000000",
		`late/without/parents 100644 0:0 links 1 "y"` + stamp,
		"pipe 10644 0:0 links 1" + stamp,
		"sym 120777 0:0 links 2 -> ../../../../outside" + stamp,
		`zeros 100644 0:0 links 1 ""` + stamp,
	}
	if diff := cmp.Diff(want, dump(t, dir)); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	if out.Files != 16 || out.Size != 300<<10+11+2 || len(out.Notes) != 0 || out.Opaque || len(out.Implied) != 2 {
		t.Errorf("%+v", out)
	}
}

// What overlayfs has no form for is brought into one, in whatever order it comes.
func TestWhiteouts(t *testing.T) {
	layertest.NeedRoot(t)
	for _, c := range []struct {
		name, tree string
		want       []string
		opaque     bool
	}{
		{"a whiteout", "w a", []string{"a 20000"}, false},
		{"twice", "w a\nw a", []string{"a 20000"}, false},
		{"and then a file", "w a\nf a x", []string{"a 100644"}, false},
		{"after the file", "f a x\nw a", []string{"a 100644"}, false},
		{"and then a link", "w a\nf b x\nh a b", []string{"a 100644", "b 100644"}, false},
		{"and then a directory", "w a\nd a\nf a/b x", []string{`a 40755 trusted.overlay.opaque="y"`, "a/b 100644"}, false},
		{"after the directory", "d a\nf a/b x\nw a", []string{`a 40755 trusted.overlay.opaque="y"`, "a/b 100644"}, false},
		{"and then something in it", "w a\nf a/b x", []string{`a 40755 trusted.overlay.opaque="y"`, "a/b 100644"}, false},
		{"in an opaque directory", "o a\nw a/b", []string{`a 40755 trusted.overlay.opaque="y"`}, false},
		{"and then opaque", "d a\nw a/b\nf a/c x\nf a/.wh..wh..opq", []string{`a 40755 trusted.overlay.opaque="y"`, "a/c 100644"}, false},
		{"further down", "o a\nd a/b\nw a/b/c", []string{`a 40755 trusted.overlay.opaque="y"`, "a/b 40755"}, false},
		{"further down, and then opaque", "d a\nd a/b\nw a/b/c\nf a/.wh..wh..opq", []string{`a 40755 trusted.overlay.opaque="y"`, "a/b 40755"}, false},
		{"in a directory, and then of it", "d a\nd a/b\nw a/b/c\nw a/d\nw a", []string{`a 40755 trusted.overlay.opaque="y"`, "a/b 40755"}, false},
		{"in a layer that hides all", "d a\nw a/b\nf .wh..wh..opq\nw c", []string{"a 40755"}, true},
		{"in a directory not mentioned", "w a/b", []string{"a 40755", "a/b 20000"}, false},
		{"at the root", "f .wh..wh..opq\nf a x", []string{"a 100644"}, true},
		{"of other programs", "f .wh..wh.plnk x\nf .wh..wh.orph y\nf a x\nf .wh..wh.plnk/1.2 x", []string{"a 100644"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, out, err := unpack(t, imagetest.Tar(imagetest.Tree(c.tree)), image.UnpackOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, line := range dump(t, dir)[1:] {
				f := strings.Fields(line)
				s := f[0] + " " + f[1]
				for _, w := range f {
					if strings.HasPrefix(w, "trusted.") {
						s += " " + w
					}
				}
				got = append(got, s)
			}
			if diff := cmp.Diff(c.want, got); diff != "" || out.Opaque != c.opaque {
				t.Errorf("opaque %v; want (-), got (+):\n%s", out.Opaque, diff)
			}
		})
	}
}

// hostile are archives that no honest program makes.
var hostile = []struct {
	name string
	tree string
	want string // in the error
}{
	{"up", "f ../evil x", "leads out"},
	{"up in the middle", "f a/../../evil x", "leads out"},
	{"up to inside", "f a/../b x", "leads out"},
	{"hard link up", "f a x\nh b ../../secret", "leads out"},
	{"hard link to a file outside", "h b /etc/passwd", "not in the layer"},
	{"hard link by way of a link", "l out ..\nh b out/secret", "not in the layer"},
	{"hard link to a directory", "d a\nh b a", "directory"},
	{"hard link to the root", "h b .", "directory"},
	{"hard link to a whiteout", "w a\nh b a", "not in the layer"},
	{"hard link to itself", "h a a", "not in the layer"},
	{"by way of a dangling link", "l a nowhere\nf a/b x", "leads nowhere"},
	{"by way of a loop", "l a b\nl b a\nf a/b x", "no directory"},
	{"by way of a file", "f a x\nf a/b x", "no directory"},
	{"by way of a whiteout device", "c a 0 0", "0:0"},
	{"file twice", "f a x\nf a y", "twice"},
	{"directory, then file", "d a\nf a y", "twice"},
	{"file, then directory", "f a x\nd a", "twice"},
	{"file, then link over it", "f a x\nl a /etc/passwd", "twice"},
	{"link, then file through it", "l a ../secret\nf a y", "twice"},
	{"link over a directory in use", "d a\nf a/b x\nl a ..\nf a/c x", "twice"},
	{"whiteout of nothing", "f .wh. x", "whiteout of nothing"},
	{"whiteout of .", "f .wh.. x", "whiteout of nothing"},
	{"whiteout of ..", "f a/.wh... x", "whiteout of nothing"},
	{"something in a whiteout", "f .wh.a/b x", "in a whiteout"},
	{"long name", "f " + strings.Repeat("x", 256) + " y", "too long"},
	{"long path", "f " + strings.Repeat("x/", 2100) + "y z", "too long"},
	{"root as a file", "f . x", "no directory"},
	{"link without a target", "l a ", "impossible target"},
}

func TestHostile(t *testing.T) {
	for _, c := range hostile {
		t.Run(c.name, func(t *testing.T) {
			refused(t, imagetest.Tar(imagetest.Tree(c.tree)), c.want)
		})
	}
	entries := func(h tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		w.Flush()
		return b.Bytes()
	}
	t.Run("unknown type", func(t *testing.T) {
		refused(t, entries(tar.Header{Typeflag: 'Z', Name: "a", Format: tar.FormatPAX}), "unknown type")
	})
	t.Run("owner -1", func(t *testing.T) {
		refused(t, entries(tar.Header{Typeflag: tar.TypeDir, Name: "a", Uid: 1<<32 - 1, Format: tar.FormatPAX}), "impossible owner")
	})
	t.Run("device number", func(t *testing.T) {
		refused(t, entries(tar.Header{Typeflag: tar.TypeChar, Name: "a", Devmajor: 1 << 40, Format: tar.FormatGNU}), "impossible device")
	})
	t.Run("size", func(t *testing.T) {
		refused(t, entries(tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 1 << 60, Format: tar.FormatPAX}), "impossible size")
	})
	t.Run("no archive", func(t *testing.T) {
		refused(t, bytes.Repeat([]byte("no archive\n"), 100), "entry 1")
	})
	t.Run("truncated contents", func(t *testing.T) {
		refused(t, imagetest.Tar(imagetest.Tree("F a 10k"))[:4<<10], "truncated")
	})
	t.Run("truncated header", func(t *testing.T) {
		refused(t, imagetest.Tar(imagetest.Tree("F a 10k"))[:700], "truncated")
	})
}

// refused unpacks what must be refused, beside a file that must stay as it is.
func refused(t *testing.T, archive []byte, want string) {
	t.Helper()
	if len(archive) == 0 {
		t.Fatal("no archive to refuse")
	}
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := image.Unpack(context.Background(), bytes.NewReader(archive), openDir(t, tree), &bytes.Buffer{}, image.UnpackOptions{})
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q in it", err, want)
	}
	onlySecret(t, dir)
}

func onlySecret(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("beside the tree: %v, %v", entries, err)
	}
	var st unix.Stat_t
	if b, err := os.ReadFile(dir + "/secret"); err != nil || string(b) != "secret" || unix.Stat(dir+"/secret", &st) != nil || st.Nlink != 1 {
		t.Errorf("the secret is now %q with %d names (%v)", b, st.Nlink, err)
	}
}

// Links that lead out lead to the layer's root, and what goes through them stays in the layer.
func TestLinksStayInside(t *testing.T) {
	dir, _, err := unpack(t, imagetest.Tar(imagetest.Tree(`
		d etc
		l up ../../../..
		f up/x 1
		l abs /etc
		f abs/y 2
		f /rooted 3
		f ./dotted 4
		h up/z abs/y
	`)), image.UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"x": "1", "etc/y": "2", "rooted": "3", "dotted": "4", "z": "2"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

func TestDevicesLeftOut(t *testing.T) {
	dir, out, err := unpack(t, imagetest.Tar(imagetest.Tree("d dev\nc dev/null 1 3\nf dev/x y")), image.UnpackOptions{SkipDevices: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir + "/dev/null"); !errors.Is(err, os.ErrNotExist) || len(out.Notes) != 1 || !strings.Contains(out.Notes[0], "dev/null") {
		t.Errorf("%v, notes %q", err, out.Notes)
	}
}

// Zeros do not need room, and archives of other programs come back as they were.
func TestSparse(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(dir + "/sparse")
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 5 << 20, 12<<20 - 3} {
		if _, err := f.WriteAt([]byte("abc"), off); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	want, err := os.ReadFile(dir + "/sparse")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--format=gnu"}, {"--format=gnu", "-S"}, {"--format=posix", "-S"}, {"--format=pax", "-S", "--sparse-version=0.0"}, {"--format=pax", "-S", "--sparse-version=0.1"}, {"--format=ustar"}, {"--format=v7"}, {"--format=gnu", "--label=x"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			cmd := exec.Command("tar", append(args, "-C", dir, "--exclude=*.tar", "-cf", "-", "sparse")...)
			archive, err := cmd.Output()
			if err != nil {
				t.Skip("no GNU tar: ", err)
			}
			out, _, err := unpack(t, archive, image.UnpackOptions{})
			if args[len(args)-1] == "--label=x" {
				if err == nil || !strings.Contains(err.Error(), "unknown type") {
					t.Errorf("a volume label: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(out + "/sparse")
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			var st unix.Stat_t
			if err := unix.Stat(out+"/sparse", &st); err != nil || st.Blocks*512 > 1<<20 {
				t.Errorf("takes %d bytes of the disk (%v)", st.Blocks*512, err)
			}
		})
	}
}

// A recipe does not give an archive of files that are not those that were unpacked.
func TestRebuildRefuses(t *testing.T) {
	archive := imagetest.Tar(imagetest.Tree("d a\nF a/b 10k\nf c xyz"))
	root := t.TempDir()
	var recipe bytes.Buffer
	if _, err := image.Unpack(context.Background(), bytes.NewReader(archive), openDir(t, root), &recipe, image.UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	rebuild := func(recipe []byte) error {
		return image.Rebuild(bytes.NewReader(recipe), openDir(t, root), &bytes.Buffer{})
	}
	if err := rebuild(recipe.Bytes()[:recipe.Len()-12]); !errors.Is(err, image.ErrRecipe) {
		t.Errorf("truncated: %v", err)
	}
	if err := rebuild([]byte("nonsense")); !errors.Is(err, image.ErrRecipe) {
		t.Errorf("nonsense: %v", err)
	}
	if err := os.WriteFile(root+"/c", []byte("four"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := rebuild(recipe.Bytes()); err == nil || !strings.Contains(err.Error(), "c: it is not the file") {
		t.Errorf("changed: %v", err)
	}
	os.Remove(root + "/c")
	if err := os.Symlink("/etc/passwd", root+"/c"); err != nil {
		t.Fatal(err)
	}
	if err := rebuild(recipe.Bytes()); err == nil {
		t.Error("a link was followed")
	}
}
