package note

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	t    *testing.T
	root string
}

func newShop(t *testing.T) *shop {
	harness.NeedRoot(t)
	dir := harness.Dir(t)
	s := &shop{t, filepath.Join(dir, "store")}
	build := exec.Command("go", "build", "-o", dir+"/todo", "./todo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the application: %v\n%s", err, out)
	}
	binary, err := os.ReadFile(dir + "/todo")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []struct {
		name, text string
		mode       int64
		uid        int
	}{{"todo", string(binary), 0o755, 0}, {"data/", "", 0o750, 1000}, {"data/list", "welcome\n", 0o640, 1000}, {"etc/", "", 0o755, 0}, {"etc/app.conf", "from the image\n", 0o644, 0}, {"etc/other", "sibling\n", 0o644, 0}} {
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
	to, err := layout.Write(dir+"/app", empty.Index)
	if err == nil {
		err = to.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.do("image", "load", "--name", "app:v1", dir+"/app")
	return s
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

// do runs plyfs, which must succeed, and returns what it printed.
func (s *shop) do(args ...string) string {
	s.t.Helper()
	cmd := exec.Command(harness.Binary(), args...)
	cmd.Env = append(os.Environ(), "PLYFS_ROOT="+s.root)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("plyfs %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s *shop) want(want string, args ...string) {
	s.t.Helper()
	if got := s.do(args...); got != want {
		s.t.Errorf("plyfs %s: %q, want %q", strings.Join(args, " "), got, want)
	}
}

func TestTwoContainersFromOneImage(t *testing.T) {
	s := newShop(t)
	before := harness.Dump(t, s.root+"/layers", true)
	s.do("run", "--name", "one", "app:v1", "write", "/etc/app.conf", "from one")
	s.do("create", "--name", "two", "app:v1", "cat", "/etc/app.conf")
	s.want("from the image\n", "start", "-a", "two")
	if diff := cmp.Diff(before, harness.Dump(t, s.root+"/layers", true)); diff != "" {
		t.Errorf("the image's layers changed:\n%s", diff)
	}
}

func TestDataGoneAfterRemove(t *testing.T) {
	s := newShop(t)
	s.do("run", "--name", "one", "app:v1", "write", "/note", "kept while it lives")
	s.do("rm", "one")
	s.do("create", "--name", "one", "app:v1", "ls", "/")
	if out := s.do("start", "-a", "one"); strings.Contains(out, "note") {
		t.Errorf("a new container has the old one's file: %s", out)
	}
}

func TestNamedVolumeOutlivesItsContainer(t *testing.T) {
	s := newShop(t)
	s.do("run", "--rm", "-v", "todo:/data", "app:v1", "add", "milk")
	s.want("welcome\nmilk\n", "run", "--rm", "-v", "todo:/data", "app:v1")
	s.want("todo\n", "volume", "ls", "-q") // the anonymous ones went with --rm; none was made
}

func TestAnonymousVolumeFromTheImage(t *testing.T) {
	s := newShop(t)
	s.do("run", "--name", "one", "app:v1", "add", "bread")
	name := strings.TrimSpace(s.do("volume", "ls", "-q"))
	if len(name) != 64 {
		t.Errorf("the volume is called %q", name)
	}
	s.want("welcome\nbread\n", "run", "--rm", "--volumes-from", "one:ro", "app:v1")
	s.do("rm", "-v", "one")
	s.want("", "volume", "ls", "-q")
}

func TestBindBothWaysAndSingleFile(t *testing.T) {
	s := newShop(t)
	host := harness.Dir(t)
	s.do("run", "--rm", "-v", host+":/data", "app:v1", "add", "from inside")
	if b, err := os.ReadFile(host + "/list"); err != nil || string(b) != "from inside\n" {
		t.Errorf("the host sees %q, %v", b, err)
	}
	if err := os.WriteFile(host+"/app.conf", []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.want("from the host\n", "run", "--rm", "-v", host+"/app.conf:/etc/app.conf:ro", "app:v1", "cat", "/etc/app.conf")
	s.want("sibling\n", "run", "--rm", "-v", host+"/app.conf:/etc/app.conf:ro", "app:v1", "cat", "/etc/other")
}
