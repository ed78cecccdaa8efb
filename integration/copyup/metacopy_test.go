package copyup

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

const metaSize = 300 << 10

// metaTree and metaChanges make metadata-only files, by a change of attributes alone, and move them.
const metaTree = "F plain 300k\nF renamed 300k\nF linked 300k\nF dir/inside 300k\nF away/moved 300k\nF both 300k"

func metaChanges(t *testing.T, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"plain", "renamed", "linked", "dir/inside", "away/moved", "both"} {
		must(t, os.Chmod(at(name), 0o600))
	}
	must(t, os.Rename(at("renamed"), at("renamed2")))
	must(t, os.Link(at("linked"), at("linked2")))
	must(t, os.Mkdir(at("new"), 0o755))
	must(t, os.Rename(at("away/moved"), at("new/moved")))
	must(t, os.Rename(at("dir"), at("dir2")))
	must(t, os.Link(at("both"), at("new/both")))
	must(t, os.Rename(at("both"), at("both2")))
}

// metaNames are what metaChanges leaves.
var metaNames = []string{"plain", "renamed2", "linked", "linked2", "dir2/inside", "new/moved", "both2", "new/both"}

// metaOnly fails unless all of the names are metadata-only in the upper.
func metaOnly(t *testing.T, l *harness.Layers) {
	t.Helper()
	for _, name := range metaNames {
		path := filepath.Join(l.Upper, name)
		if _, err := unix.Lgetxattr(path, "trusted.overlay.metacopy", nil); err != nil {
			t.Errorf("%s: not metadata-only: %v", name, err)
		}
		if n := used(t, path); n > 64<<10 {
			t.Errorf("%s: %d bytes used", name, n)
		}
	}
	if left := unfinished(t, l.Upper); len(left) > 0 || marked(l) {
		t.Errorf("unfinished: %v, marked: %v", left, marked(l))
	}
}

func metaWhole(t *testing.T, dir string, want []byte) {
	t.Helper()
	for _, name := range metaNames {
		path := filepath.Join(dir, name)
		sameBytes(t, path, want)
		if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
}

// TestMetadataOnlyFiles are written by one of plyfs and the kernel, read and written to by
// the other, and read by the first again.
func TestMetadataOnlyFiles(t *testing.T) {
	harness.NeedRoot(t)
	mounts := map[string]func(t *testing.T, l *harness.Layers) *harness.Mount{
		"plyfs":  func(t *testing.T, l *harness.Layers) *harness.Mount { return l.Plyfs(t, "-o", "metacopy=on") },
		"kernel": func(t *testing.T, l *harness.Layers) *harness.Mount { return l.Kernel(t, "metacopy=on") },
	}
	for writer, other := range map[string]string{"plyfs": "kernel", "kernel": "plyfs"} {
		t.Run("by "+writer, func(t *testing.T) {
			l := harness.NewLayers(t, metaTree)
			m := mounts[writer](t, l)
			metaChanges(t, m.Dir)
			want := harness.Bytes(metaSize)
			metaWhole(t, m.Dir, want)
			m.Close(t)
			metaOnly(t, l)

			m = mounts[other](t, l)
			metaWhole(t, m.Dir, want)
			m.Close(t)
			metaOnly(t, l) // reading completes nothing

			m = mounts[other](t, l)
			for _, name := range metaNames {
				want = writeAt(t, m.Path(name), want, "written", 100_000)
			}
			metaWhole(t, m.Dir, want)
			m.Close(t)
			m = mounts[writer](t, l)
			metaWhole(t, m.Dir, want)
			m.Close(t)
			for _, name := range metaNames {
				if _, err := unix.Lgetxattr(filepath.Join(l.Upper, name), "trusted.overlay.metacopy", nil); err != unix.ENODATA {
					t.Errorf("%s: metadata-only after a write: %v", name, err)
				}
			}
		})
	}
}

// TestMetadataOnlyWithoutTheOption: nobody asked for metacopy, and the kernel needs no option for
// what an unmount leaves, moved or not; nor does it for files another mount left metadata-only.
func TestMetadataOnlyWithoutTheOption(t *testing.T) {
	harness.NeedRoot(t)
	want := harness.Bytes(metaSize)
	t.Run("made here", func(t *testing.T) {
		l := harness.NewLayers(t, metaTree)
		m := l.Plyfs(t, "--settle-budget", "off")
		metaChanges(t, m.Dir)
		metaWhole(t, m.Dir, want)
		m.Close(t)
		for _, name := range metaNames {
			sameBytes(t, filepath.Join(l.Upper, name), want)
		}
		metaWhole(t, l.Kernel(t).Dir, want)
	})
	t.Run("found here", func(t *testing.T) {
		l := harness.NewLayers(t, metaTree)
		k := l.Kernel(t, "metacopy=on")
		metaChanges(t, k.Dir)
		k.Close(t)
		m := l.Plyfs(t)
		metaWhole(t, m.Dir, want)
		m.Close(t)
		metaWhole(t, l.Kernel(t, "metacopy=on").Dir, want)
	})
}

// TestDataOnlyFiles: files whose data is in a data-only layer are read, and copied up in every way.
func TestDataOnlyFiles(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "f big x\nf small x\nf attrs x\nf cut x", "F blob 300k\nF little 3k")
	meta, data := l.Lowers[0], l.Lowers[1]
	l.Lowers = l.Lowers[:1]
	for name, blob := range map[string]string{"big": "/blob", "small": "/little", "attrs": "/blob", "cut": "/blob"} {
		path := filepath.Join(meta, name)
		st, err := os.Stat(data + blob)
		must(t, err)
		must(t, os.Truncate(path, 0))
		must(t, os.Truncate(path, st.Size()))
		must(t, unix.Setxattr(path, "trusted.overlay.metacopy", nil, 0))
		must(t, unix.Setxattr(path, "trusted.overlay.redirect", []byte(blob), 0))
	}
	mount := func() *harness.Mount {
		return l.Plyfs(t, append([]string{"-o", "datadir+=" + data}, manual...)...)
	}
	want := map[string][]byte{"big": harness.Bytes(300 << 10), "small": harness.Bytes(3 << 10), "attrs": harness.Bytes(300 << 10), "cut": harness.Bytes(300 << 10)}
	look := func(dir, when string) {
		t.Helper()
		for name, b := range want {
			got, err := os.ReadFile(filepath.Join(dir, name))
			must(t, err)
			same(t, name+" "+when, got, b)
		}
	}
	m := mount()
	look(m.Dir, "before")
	w := events(t, m)
	want["big"] = writeAt(t, m.Path("big"), want["big"], "written", 200_001)
	want["small"] = writeAt(t, m.Path("small"), want["small"], "written", 5)
	must(t, os.Chmod(m.Path("attrs"), 0o600))
	must(t, os.Truncate(m.Path("cut"), 100_001))
	want["cut"] = want["cut"][:100_001]
	for _, ev := range w.next(t) {
		if ev.Layer != meta || ev.Path == "/big" && (ev.Method != "range" || ev.BytesCopied > 8192) || ev.Err != "" {
			t.Errorf("event: %+v", ev)
		}
	}
	look(m.Dir, "after")
	m.Close(t)
	if n := used(t, l.Upper+"/big"); n > 64<<10 {
		t.Errorf("%d bytes of the large file are in the upper", n)
	}
	m = mount()
	look(m.Dir, "mounted again")
	settle(t, m)
	m.Close(t)
	for name, b := range want {
		sameBytes(t, filepath.Join(l.Upper, name), b)
	}
	look(l.Kernel(t, "datadir+="+data).Dir, "in the kernel")
}
