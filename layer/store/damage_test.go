package store

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// harm is what can become of a record. text replaces it, or do does something else to it.
type harm struct {
	name string
	text string
	do   func(path string) error
}

var harms = []harm{
	{name: "empty"},
	{name: "zeros", text: strings.Repeat("\x00", 512)},
	{name: "garbage", text: "}{ not JSON at all"},
	{name: "an array", text: "[]"},
	{name: "null", text: "null"},
	{name: "a string", text: `"layers"`},
	{name: "without its fields", text: "{}"},
	{name: "half", do: func(path string) error {
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		return os.Truncate(path, st.Size()/2)
	}},
	{name: "more after it", do: func(path string) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, append(b, b...), 0o600)
	}},
	{name: "too large", do: func(path string) error { return os.Truncate(path, maxRecord+1) }},
	{name: "missing", do: os.Remove},
	{name: "a directory", do: func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o755)) }},
	{name: "a link", do: func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/etc/hostname", path)) }},
	{name: "a fifo", do: func(path string) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) }},
}

func (h *harm) to(t *testing.T, path string) {
	t.Helper()
	do := h.do
	if do == nil {
		do = func(path string) error { return os.WriteFile(path, []byte(h.text), 0o600) }
	}
	if err := do(path); err != nil {
		t.Fatal(err)
	}
}

// told opens the store as another command does, and returns it with a check of what it is told about damage: once about
// the file, with help.
func told(t *testing.T, root, path, help string) (*Store, func()) {
	t.Helper()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	s.OnDamage(func(d *Damage) { got = append(got, d.Error()) })
	return s, func() {
		t.Helper()
		if len(got) != 1 || !strings.Contains(got[0], path) || !strings.Contains(got[0], help) || strings.Contains(got[0], "\n") {
			t.Errorf("told %q, want one line with %s and %q", got, path, help)
		}
	}
}

// one checks an error that is damage.
func one(t *testing.T, err error, path, help string) {
	t.Helper()
	if d := damageOf(err); d == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), help) || errors.Is(err, ErrNotFound) {
		t.Errorf("%v, want damage of %s, with %q", err, path, help)
	}
}

// An image that is damaged is in nobody's way: the others are listed, loaded, used and removed; what it may need stays;
// it can be removed; and loading it again mends it.
func TestDamagedImage(t *testing.T) {
	dir := tempDir(t)
	bad := app("bad:v1", "")
	bad.Layers = append(bad.Layers, imagetest.Tree("f bad x"))
	third := app("third:v1", "")
	third.Layers = append(third.Layers, imagetest.Tree("f third x"))
	imagetest.WriteLayout(t, dir+"/good", app("good:v1", ""))
	imagetest.WriteLayout(t, dir+"/bad", bad)
	imagetest.WriteLayout(t, dir+"/third", third)
	own := imagetest.Digest(imagetest.Tar(bad.Layers[3]))[len(digestPrefix):]

	list := map[string][]harm{}
	for _, h := range harms {
		for _, file := range []string{"image.json", "config.json", "layer.json"} {
			list[file] = append(list[file], h)
		}
	}
	none := strings.Repeat("0", 64)
	for _, text := range []string{`{"layers": 3}`, `{"layers": null}`, `{"layers": ["` + own + `"]}`, `{"layers": ["../../..", "` + own + `", "x", ""]}`,
		`{"layers": ["` + own + `", "` + own + `", "` + own + `", "` + own + `"]}`, `{"layers": ["` + own + `/", "", "", ""]}`} {
		list["image.json"] = append(list["image.json"], harm{name: text, text: text})
	}
	list["config.json"] = append(list["config.json"], harm{name: "another", text: `{"os":"linux","rootfs":{"diff_ids":[]}}`})
	list["layer.json"] = append(list["layer.json"],
		harm{name: "another", text: `{"diff_id":"sha256:` + none + `","size":1,"files":1}`},
		harm{name: "without its files", do: func(path string) error { return os.RemoveAll(strings.TrimSuffix(path, "layer.json") + "tree") }})

	for file, harms := range list {
		for _, h := range harms {
			t.Run(file+" "+h.name, func(t *testing.T) {
				t.Parallel()
				first := open(t)
				var id string
				for _, name := range []string{"good", "bad"} {
					got, err := load(t.Context(), first, dir+"/"+name, image.OpenOptions{})
					if err != nil {
						t.Fatal(err)
					}
					id = got[0].ID
				}
				good, err := first.Image("good:v1")
				if err != nil {
					t.Fatal(err)
				}
				fakeContainer(t, first, "web", good.ID)
				path := first.imagePath(id, file)
				if file == "layer.json" {
					path = first.Path("layers", own, file)
				}
				h.to(t, path)
				const help = "plyfs image rm "
				fresh := func() (*Store, func()) { t.Helper(); return told(t, first.Root(), path, help) }

				s, check := fresh()
				all, err := s.Images()
				if err != nil || len(all) != 1 || all[0].ID != good.ID {
					t.Errorf("%v, %v", all, err)
				}
				check()
				_, err = s.Image("bad:v1")
				one(t, err, path, help)
				_, err = s.Image(id[:20])
				one(t, err, path, help)
				_, err = s.Tag("bad:v1", "x")
				one(t, err, path, help)
				if _, err := s.Tag("good:v1", "other:v1"); err != nil {
					t.Error(err)
				}
				if err := s.Save(t.Context(), []string{"good:v1"}, tempDir(t)+"/out.tar", true); err != nil {
					t.Error(err)
				}
				if err := s.CreateContainer(&Container{Name: "new", ImageName: "good:v1"}, nil, func(c *Container, _ *Image) error { c.Args = []string{"x"}; return nil }); err != nil {
					t.Error(err)
				}

				// Prune leaves what it may need, which is all if its configuration is not known.
				fakeLayer(t, s, none)
				s, check = fresh()
				if _, err := s.Prune(false); err != nil {
					t.Error(err)
				}
				check()
				if got := isDir(s.Path("layers", none)); got != (file == "config.json") {
					t.Errorf("the layer that nobody has is there: %v", got)
				}
				for _, d := range bad.Build().DiffIDs {
					if !isDir(s.Path("layers", d[len(digestPrefix):])) {
						t.Errorf("layer %s is gone", d)
					}
				}
				s, check = fresh()
				if _, err := load(t.Context(), s, dir+"/third", image.OpenOptions{}); err != nil {
					t.Error(err)
				}
				if got, err := s.RemoveImage("third:v1", false); err != nil || len(got.Images) != 1 {
					t.Errorf("%v, %v", got, err)
				}
				check()

				// Once more, and it is whole.
				if _, err := load(t.Context(), s, dir+"/bad", image.OpenOptions{}); err != nil {
					t.Fatal(err)
				}
				s, _ = fresh()
				img, err := s.Image("bad:v1")
				if err != nil || img.ID != id || len(img.Layers) != 4 {
					t.Fatalf("%v, %v", img, err)
				}
				if b, err := os.ReadFile(img.LayerDirs()[0] + "/bad"); err != nil || string(b) != "x" {
					t.Errorf("%q, %v", b, err)
				}
				if err := s.Save(t.Context(), []string{"bad:v1"}, tempDir(t)+"/out.tar", true); err != nil {
					t.Error(err)
				}
				unchanged(t, s, func() {
					if _, err := load(t.Context(), s, dir+"/bad", image.OpenOptions{}); err != nil {
						t.Error(err)
					}
				})

				// Or it is removed.
				if file == "layer.json" {
					path = strings.TrimSuffix(img.LayerDirs()[0], "tree") + file
				}
				h.to(t, path)
				s, _ = fresh()
				if got, err := s.RemoveImage("bad:v1", false); err != nil || len(got.Images) != 1 || len(got.Names) != 1 {
					t.Errorf("%v, %v", got, err)
				}
				if _, err := s.Prune(false); err != nil {
					t.Error(err)
				}
				if n, err := s.layerNames(); err != nil || len(n) != 3 {
					t.Errorf("%v, %v; want the 3 layers of the other", n, err)
				}
				if _, err := s.Image(id); !errors.Is(err, ErrNotFound) {
					t.Error(err)
				}
			})
		}
	}
}

// A failed load takes its layers away although an image is damaged: it did not have them.
func TestDamagedImageFailedLoad(t *testing.T) {
	dir := tempDir(t)
	s := open(t)
	imagetest.WriteLayout(t, dir+"/good", app("good:v1", ""))
	got, err := load(t.Context(), s, dir+"/good", image.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.imagePath(got[0].ID, "config.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	bad := app("bad:v1", "")
	bad.Layers = append(bad.Layers, imagetest.Tree("f fine x"), imagetest.Tree("f ../evil x"))
	imagetest.WriteLayout(t, dir+"/bad", bad)
	unchanged(t, s, func() {
		if _, err := load(t.Context(), s, dir+"/bad", image.OpenOptions{}); err == nil {
			t.Error("no error")
		}
	})
}

// Without names there are ids, and nothing is taken for nameless.
func TestDamagedNames(t *testing.T) {
	dir := tempDir(t)
	imagetest.WriteLayout(t, dir+"/good", app("good:v1", ""))
	imagetest.WriteLayout(t, dir+"/nameless", app("", ""))
	for _, h := range append(harms, harm{name: "numbers", text: `{"a:b": 1}`}) {
		if h.name == "missing" || h.name == "null" || h.name == "without its fields" {
			continue // no names
		}
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			first := open(t)
			got, err := load(t.Context(), first, dir+"/good", image.OpenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			path := first.Path("images", "names.json")
			h.to(t, path)
			const help = "move it away"
			s, check := told(t, first.Root(), path, help)
			if all, err := s.Images(); err != nil || len(all) != 1 {
				t.Errorf("%v, %v", all, err)
			}
			if _, err := s.Image(got[0].ID); err != nil {
				t.Error(err)
			}
			if _, err := load(t.Context(), s, dir+"/nameless", image.OpenOptions{}); err != nil && damageOf(err) == nil {
				t.Error(err)
			}
			check()
			unchanged(t, s, func() {
				for _, try := range []func() error{
					func() error { _, err := s.Image("good:v1"); return err },
					func() error { _, err := s.Tag(got[0].ID, "x"); return err },
					func() error { _, err := s.Prune(false); return err },
					func() error { _, err := s.RemoveImage(got[0].ID, true); return err },
					func() error { _, err := load(t.Context(), s, dir+"/good", image.OpenOptions{}); return err },
				} {
					one(t, try(), path, help)
				}
			})
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Tag(got[0].ID, "good:v1"); err != nil {
				t.Error(err)
			}
		})
	}
}

// A name of nothing, or of what is no id, goes like any other and takes nothing with it.
func TestNameOfNothing(t *testing.T) {
	for _, id := range []string{digestPrefix + strings.Repeat("0", 64), "", "sha256:", "sha256:../layers", "../layers", "sha256:.", "sha256:ABC"} {
		s := open(t)
		fake(t, s, "a", "1")
		if err := s.writeNames(names{"app:v1": id, "no name": id}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Image("app:v1"); err == nil || !strings.Contains(err.Error(), "app:v1") && !strings.Contains(err.Error(), "names.json") {
			t.Errorf("%q: %v", id, err)
		}
		if _, err := s.Image("app@sha256:" + strings.Repeat("1", 64)); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
		if all, err := s.Images(); err != nil || len(all) != 1 {
			t.Errorf("%q: %v, %v", id, all, err)
		}
		if _, err := s.RemoveImage("app:v1", true); err != nil {
			t.Errorf("%q: %v", id, err)
		}
		if _, err := s.Image("app:v1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
		if got := left(t, s); got != "a 1" {
			t.Errorf("%q: left: %q", id, got)
		}
	}
}
