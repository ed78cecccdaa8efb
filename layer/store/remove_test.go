package store

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/layer/image"
)

// fake makes an image of the given layers, without going through a load. Ids are
// made of one letter.
func fake(t *testing.T, s *Store, id string, layers ...string) string {
	t.Helper()
	long := func(letter string) string { return strings.Repeat(letter, 64) }
	var names []string
	for _, l := range layers {
		names = append(names, long(l))
		fakeLayer(t, s, long(l))
	}
	return fakeImage(t, s, id, names)
}

// fakeLayer makes a layer of that digest.
func fakeLayer(t *testing.T, s *Store, hex string) {
	t.Helper()
	if err := os.MkdirAll(s.Path("layers", hex, "tree", "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteJSON(s.Path("layers", hex, "layer.json"), layerRecord{DiffID: digestPrefix + hex, Size: 10}); err != nil {
		t.Fatal(err)
	}
}

// fakeImage makes an image whose id begins with that prefix.
func fakeImage(t *testing.T, s *Store, prefix string, layers []string) string {
	t.Helper()
	c := imageConfig{OS: "linux"}
	for _, l := range slices.Backward(layers) {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digestPrefix+l)
	}
	for n := 0; ; n++ {
		c.Config.Env = []string{"N=" + strconv.Itoa(n)}
		raw, err := json.Marshal(&c)
		if err != nil {
			t.Fatal(err)
		}
		id := image.Digest(raw)
		if !strings.HasPrefix(id, digestPrefix+prefix) {
			continue
		}
		if err := os.Mkdir(s.imagePath(id), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.imagePath(id, "config.json"), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := WriteJSON(s.imagePath(id, "image.json"), imageRecord{Layers: layers}); err != nil {
			t.Fatal(err)
		}
		return id
	}
}

// fakeContainer makes a container that does not run.
func fakeContainer(t *testing.T, s *Store, name, image string, mounts ...Mount) *Container {
	t.Helper()
	c := &Container{ID: newID(), Name: name, Image: image, Args: []string{"sh"}, Mounts: mounts}
	if err := os.MkdirAll(s.ContainerPath(c, "upper"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.ContainerPath(c, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteJSON(s.ContainerPath(c, "container.json"), c); err != nil {
		t.Fatal(err)
	}
	return c
}

// left returns the first letters of the images and layers there are.
func left(t *testing.T, s *Store) string {
	t.Helper()
	var b strings.Builder
	for _, kind := range []string{"images", "layers", "staging"} {
		entries, err := os.ReadDir(s.Path(kind))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() {
				b.WriteString(e.Name()[:1])
			}
		}
		b.WriteString(" ")
	}
	return strings.TrimSpace(b.String())
}

func TestRemove(t *testing.T) {
	s := open(t)
	a, b := fake(t, s, "a", "1", "2"), fake(t, s, "b", "2", "3")
	fake(t, s, "c", "4")
	for name, ref := range map[string]string{"one": a, "two": a, "other:v1": b} {
		if _, err := s.Tag(ref, name); err != nil {
			t.Fatal(err)
		}
	}
	fakeContainer(t, s, "web", b)
	check := func(want string) {
		t.Helper()
		if got := left(t, s); got != want {
			t.Errorf("left: %q, want %q", got, want)
		}
	}
	fails := func(ref, with string) {
		t.Helper()
		if _, err := s.RemoveImage(ref, false); err == nil || !strings.Contains(err.Error(), with) {
			t.Errorf("rm %s: %v, want %q in it", ref, err, with)
		}
	}
	check("abc 1234")
	fails("nothing", "no image")
	fails("other:v1", "used by web")
	fails(a, "2 names")
	check("abc 1234")

	got, err := s.RemoveImage("one", false)
	if diff := cmp.Diff(&Removed{Names: []string{"one:latest"}, Images: []string{}, Layers: []string{}}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	check("abc 1234")

	// The layer that both have stays with the other; one that somebody holds stays too.
	release, ok, err := s.holdLayer(strings.Repeat("4", 64))
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if got, err = s.RemoveImage("two", false); err != nil || got.Size != 10 {
		t.Error(got, err)
	}
	check("bc 234")
	if _, err := s.Prune(true); err != nil {
		t.Error(err)
	}
	check("b 234")
	release()
	if _, err := s.Prune(false); err != nil {
		t.Error(err)
	}
	check("b 23")
	if _, ok, err := s.holdLayer(strings.Repeat("4", 64)); ok || err != nil {
		t.Error(ok, err)
	}

	// A container whose record nobody understands may use anything.
	if err := os.WriteFile(s.Path("containers", "web", "container.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	fails("other:v1", "damaged")
	if err := os.RemoveAll(s.Path("containers", "web")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RemoveImage("other:v1", false); err != nil {
		t.Error(err)
	}
	check("")
}
