package note

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/plyfs/plyfs/integration/harness"
)

// shop is a store with the image of the application in it.
type shop struct {
	harness.CLI
	t    *testing.T
	root string
}

// entry is a file of an image; a directory's name ends with a slash.
type entry struct {
	name, text string
	mode       int64
	uid        int
}

// program is the application, built once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "todo-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", dir+"/todo", "./todo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the application: %v\n%s", err, out)
	}
	b, err := os.ReadFile(dir + "/todo")
	return string(b), err
})

// newShop makes a store with app:v1 in it.
func newShop(t *testing.T) *shop {
	harness.NeedRoot(t)
	root := filepath.Join(harness.Dir(t), "store")
	s := &shop{harness.CLI{T: t, Root: root}, t, root}
	s.load("app:v1", "welcome\n")
	return s
}

// load brings in an image of the application, whose list begins with the given text.
func (s *shop) load(name, list string) {
	s.t.Helper()
	t := s.t
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []entry{{"todo", binary, 0o755, 0}, {"data/", "", 0o750, 1000}, {"data/list", list, 0o640, 1000},
		{"etc/", "", 0o755, 0}, {"etc/app.conf", "from the image\n", 0o644, 0}, {"etc/other", "sibling\n", 0o644, 0}} {
		typ := byte(tar.TypeReg)
		if strings.HasSuffix(h.name, "/") {
			typ = tar.TypeDir
		}
		if err := w.WriteHeader(&tar.Header{Name: h.name, Typeflag: typ, Mode: h.mode, Uid: h.uid, Gid: h.uid, Size: int64(len(h.text))}); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, h.text)
	}
	w.Close()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err == nil {
		img, err = mutate.ConfigFile(img, withConfig(t, img))
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := harness.Dir(t) + "/app"
	to, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = to.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Do("image", "load", "--name", name, dir)
}

func withConfig(t *testing.T, img v1.Image) *v1.ConfigFile {
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", "amd64"
	c.Config.Entrypoint = []string{"/todo"}
	c.Config.Volumes = map[string]struct{}{"/data": {}}
	return c
}

// mount mounts with plyfs mount, and returns where, and what ends it.
func (s *shop) mount(args ...string) (dir string, umount func()) {
	s.t.Helper()
	dir = harness.Dir(s.t)
	s.Do(append(append([]string{"mount"}, args...), dir)...)
	return dir, func() { s.Do("umount", dir) }
}

func (s *shop) write(path, text string) {
	s.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shop) holds(path, want string) {
	s.t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != want {
		s.t.Errorf("%s: %q, %v; want %q", path, b, err, want)
	}
}

func (s *shop) gone(path string) {
	s.t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		s.t.Errorf("%s: %v, want none", path, err)
	}
}

func TestTwoContainersFromOneImage(t *testing.T) {
	s := newShop(t)
	before := harness.Dump(t, s.root+"/layers", true)
	s.Do("run", "--name", "one", "app:v1", "write", "/etc/app.conf", "from one")
	s.Do("create", "--name", "two", "app:v1", "cat", "/etc/app.conf")
	s.Want("from the image\n", "start", "-a", "two")
	if diff := cmp.Diff(before, harness.Dump(t, s.root+"/layers", true)); diff != "" {
		t.Errorf("the image's layers changed:\n%s", diff)
	}
}

func TestDataGoneAfterRemove(t *testing.T) {
	s := newShop(t)
	s.Do("run", "--name", "one", "app:v1", "write", "/note", "kept while it lives")
	s.Do("rm", "one")
	s.Do("create", "--name", "one", "app:v1", "ls", "/")
	if out := s.Do("start", "-a", "one"); strings.Contains(out, "note") {
		t.Errorf("a new container has the old one's file: %s", out)
	}
}

func TestNamedVolumeOutlivesItsContainer(t *testing.T) {
	s := newShop(t)
	s.Do("run", "--rm", "-v", "todo:/data", "app:v1", "add", "milk")
	s.Want("welcome\nmilk\n", "run", "--rm", "-v", "todo:/data", "app:v1")
	s.Want("todo\n", "volume", "ls", "-q") // the anonymous ones went with --rm; none was made
}

func TestAnonymousVolumeFromTheImage(t *testing.T) {
	s := newShop(t)
	s.Do("run", "--name", "one", "app:v1", "add", "bread")
	name := strings.TrimSpace(s.Do("volume", "ls", "-q"))
	if len(name) != 64 {
		t.Errorf("the volume is called %q", name)
	}
	s.Want("welcome\nbread\n", "run", "--rm", "--volumes-from", "one:ro", "app:v1")
	s.Do("rm", "-v", "one")
	s.Want("", "volume", "ls", "-q")
}

func TestBindBothWaysAndSingleFile(t *testing.T) {
	s := newShop(t)
	host := harness.Dir(t)
	s.Do("run", "--rm", "-v", host+":/data", "app:v1", "add", "from inside")
	if b, err := os.ReadFile(host + "/list"); err != nil || string(b) != "from inside\n" {
		t.Errorf("the host sees %q, %v", b, err)
	}
	if err := os.WriteFile(host+"/app.conf", []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Want("from the host\n", "run", "--rm", "-v", host+"/app.conf:/etc/app.conf:ro", "app:v1", "cat", "/etc/app.conf")
	s.Want("sibling\n", "run", "--rm", "-v", host+"/app.conf:/etc/app.conf:ro", "app:v1", "cat", "/etc/other")
}
