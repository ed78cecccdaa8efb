package note

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/plyfs/plyfs/integration/harness"
)

// shop is a store with the image of the application in it: app:v1.
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

// newShop makes a store with app:v1 in it: the application alone, from scratch; or with PLYFS_REAL=1 on a Debian system.
func newShop(t *testing.T) *shop {
	t.Helper()
	harness.NeedRoot(t)
	var s *shop
	if os.Getenv("PLYFS_REAL") == "1" {
		s = onDebian(t)
	} else {
		root := filepath.Join(harness.Dir(t), "store")
		s = &shop{harness.CLI{T: t, Root: root}, t, root}
	}
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
		{"etc/", "", 0o755, 0}, {"etc/app/", "", 0o755, 0}, {"etc/app/app.conf", "from the image\n", 0o644, 0}, {"etc/app/other", "sibling\n", 0o644, 0}} {
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
	img := v1.Image(empty.Image)
	if debian != nil {
		img, err = mutate.AppendLayers(img, debian)
	}
	if err == nil {
		img, err = mutate.AppendLayers(img, layer)
	}
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

// serve starts the application's server in a new container, and returns where it is.
func (s *shop) serve(name string, flags ...string) (url string) {
	s.t.Helper()
	s.Do(append(append([]string{"run", "-d", "--name", name}, flags...), "app:v1", "serve")...)
	s.t.Cleanup(func() { _ = s.Command("rm", "-f", name).Run() })
	for until := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if url, found := strings.CutSuffix(s.Do("logs", name), "\n"); found {
			return url
		}
		if time.Now().After(until) {
			s.t.Fatalf("the server in %s does not say where it is", name)
		}
	}
}

// lists fails the test if the server has another list.
func (s *shop) lists(url, want string) {
	s.t.Helper()
	if got := s.answer(http.Get(url)); got != want {
		s.t.Errorf("the server lists %q, want %q", got, want)
	}
}

// post adds to the list of a server, and returns its complaint.
func (s *shop) post(url, text string) string {
	s.t.Helper()
	return s.answer(http.Post(url, "text/plain", strings.NewReader(text)))
}

func (s *shop) answer(r *http.Response, err error) string {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Error(err)
	}
	return string(b)
}

// sameLayers fails the test if something changed in the image's layers since it was called: owners, modes, times,
// attributes, contents (by hash).
func (s *shop) sameLayers() (check func()) {
	before := harness.Dump(s.t, s.root+"/layers", true)
	return func() {
		s.t.Helper()
		if diff := cmp.Diff(before, harness.Dump(s.t, s.root+"/layers", true)); diff != "" {
			s.t.Errorf("the image's layers changed:\n%.2000s", diff)
		}
	}
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
