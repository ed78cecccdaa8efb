package store

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fake makes an image of the given layers, without going through a load. Ids are
// made of one letter.
func fake(t *testing.T, s *Store, id string, layers ...string) string {
	t.Helper()
	long := func(letter string) string { return strings.Repeat(letter, 64) }
	var names []string
	for _, l := range layers {
		dir := s.Path("layers", long(l))
		names = append(names, long(l))
		if err := os.MkdirAll(dir+"/tree/d", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := WriteJSON(dir+"/layer.json", layerRecord{DiffID: digestPrefix + long(l), Size: 10}); err != nil {
			t.Fatal(err)
		}
	}
	dir := s.Path("images", long(id))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/config.json", []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteJSON(dir+"/image.json", imageRecord{Layers: names}); err != nil {
		t.Fatal(err)
	}
	return digestPrefix + long(id)
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
	if err := os.MkdirAll(s.Path("containers", "web"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteJSON(s.Path("containers", "web", "container.json"), containerRef{Image: b}); err != nil {
		t.Fatal(err)
	}
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
