package store

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// A container whose record is damaged is in nobody's way, may use any image and any volume, and can be removed.
func TestDamagedContainer(t *testing.T) {
	list := append(harms,
		harm{name: "without an id", text: `{"image":"sha256:` + strings.Repeat("a", 64) + `","args":["x"],"mounts":null}`},
		harm{name: "without mounts", text: `{"id":"` + strings.Repeat("a", 64) + `","image":"sha256:` + strings.Repeat("a", 64) + `","args":["x"]}`},
		harm{name: "with numbers", text: `{"id":1,"image":2,"args":3,"mounts":4}`},
		harm{name: "of no image", text: `{"id":"` + strings.Repeat("a", 64) + `","image":"app:v1","args":["x"],"mounts":null}`})
	for _, h := range list {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			first := open(t)
			id := fake(t, first, "a", "1")
			for _, name := range []string{"named", "other"} {
				if _, _, err := first.CreateVolume(name, nil); err != nil {
					t.Fatal(err)
				}
			}
			good := fakeContainer(t, first, "good", id, Mount{Type: VolumeMount, Source: "other", Target: "/o"})
			bad := fakeContainer(t, first, "bad", id, Mount{Type: VolumeMount, Source: "named", Target: "/v"})
			path := first.ContainerPath(bad, "container.json")
			h.to(t, path)
			const help = "plyfs rm bad"
			fresh := func() (*Store, func()) { t.Helper(); return told(t, first.Root(), path, help) }

			s, check := fresh()
			if all, err := s.Containers(); err != nil || len(all) != 1 || all[0].Name != "good" {
				t.Errorf("%v, %v", all, err)
			}
			if c, err := s.Container(good.ID[:8]); err != nil || c.Name != "good" {
				t.Errorf("%v, %v", c, err)
			}
			check()
			_, err := s.Container("bad")
			one(t, err, path, help)
			new := func(name string) error {
				return s.CreateContainer(&Container{Name: name, ImageName: id}, nil, func(c *Container, _ *Image) error { c.Args = []string{"x"}; return nil })
			}
			if err := new("new"); err != nil {
				t.Error(err)
			}
			if err := new("bad"); err == nil || !strings.Contains(err.Error(), "plyfs rm bad") {
				t.Error(err)
			}

			// Nothing that it may use goes.
			s, check = fresh()
			if all, err := s.Volumes(); err != nil || len(all) != 2 {
				t.Errorf("%v, %v", all, err)
			}
			check()
			s, check = fresh()
			if got, err := s.PruneVolumes(true); err != nil || len(got) != 0 {
				t.Errorf("%v, %v", got, err)
			}
			check()
			one(t, s.RemoveVolume("named", false), path, help)
			for _, name := range []string{"good", "new"} {
				remove(t, s, name)
			}
			_, err = s.RemoveImage(id, true)
			one(t, err, path, help)
			s, check = fresh()
			if got, err := s.Prune(true); err != nil || len(got.Images)+len(got.Layers) != 0 {
				t.Errorf("%v, %v", got, err)
			}
			check()

			remove(t, s, "bad")
			if got, err := s.Prune(true); err != nil || len(got.Images) != 1 || len(got.Layers) != 1 {
				t.Errorf("%v, %v", got, err)
			}
			if got, err := s.PruneVolumes(true); err != nil || len(got) != 2 {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// remove removes a container as the command does.
func remove(t *testing.T, s *Store, name string) {
	t.Helper()
	c, err := s.ContainerToRemove(name)
	if err != nil {
		t.Fatal(err)
	}
	release, err := s.LockContainer(c)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := s.RemoveLocked(c, true); err != nil {
		t.Error(err)
	}
	if _, err := s.Container(name); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// How the last run ended is not worth more than a word, and a lost lock is made anew.
func TestDamagedState(t *testing.T) {
	for _, h := range harms {
		if h.name == "missing" {
			continue // it never ran
		}
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			first := open(t)
			c := fakeContainer(t, first, "web", fake(t, first, "a", "1"))
			if err := first.SetState(c, &State{Status: Exited, ExitCode: 3}); err != nil {
				t.Fatal(err)
			}
			path := first.ContainerPath(c, "state.json")
			h.to(t, path)
			s, check := told(t, first.Root(), path, "the next start")
			st, err := s.State(c)
			if err != nil || st.Status != Exited || !strings.Contains(st.Error, path) {
				t.Errorf("%+v, %v", st, err)
			}
			check()
			if err := os.Remove(s.ContainerPath(c, "lock")); err != nil {
				t.Fatal(err)
			}
			if st, err := s.State(c); err != nil || st.Status.Live() {
				t.Errorf("%+v, %v", st, err)
			}
			remove(t, s, "web")
			if _, err := s.State(c); !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
		})
	}
}

// A volume whose record is damaged keeps its data until somebody says that it shall go, and can have a new record.
func TestDamagedVolume(t *testing.T) {
	for _, h := range append(harms, harm{name: "of another kind", text: `{"created": 7}`}) {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			first := open(t)
			id := fake(t, first, "a", "1")
			for _, name := range []string{"bad", "good", strings.Repeat("b", 64)} {
				if _, _, err := first.CreateVolume(name, nil); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(first.Path("volumes", name, "data", "f"), []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			path := first.Path("volumes", "bad", "volume.json")
			h.to(t, path)
			const help = "plyfs volume create bad"
			fresh := func() (*Store, func()) { t.Helper(); return told(t, first.Root(), path, help) }
			s, check := fresh()
			if all, err := s.Volumes(); err != nil || len(all) != 2 {
				t.Errorf("%v, %v", all, err)
			}
			check()
			_, err := s.Volume("bad")
			one(t, err, path, help)
			if _, err := s.Volume("good"); err != nil {
				t.Error(err)
			}
			with := func(volume string) error {
				c := &Container{ImageName: id, Mounts: []Mount{{Type: VolumeMount, Source: volume, Target: "/v"}}}
				return s.CreateContainer(c, nil, func(c *Container, _ *Image) error { c.Args = []string{"x"}; return nil })
			}
			one(t, with("bad"), path, help)
			one(t, s.FillVolume("bad", func(string) (bool, error) { t.Error("it is filled"); return false, nil }), path, help)
			if err := with("good"); err != nil {
				t.Error(err)
			}
			s, check = fresh()
			if got, err := s.PruneVolumes(true); err != nil || len(got) != 1 || got[0] != strings.Repeat("b", 64) {
				t.Errorf("%v, %v", got, err)
			}
			check()
			if h.name != "a directory" { // nobody but a person can know what is in there
				if v, created, err := s.CreateVolume("bad", map[string]string{"k": "v"}); err != nil || created || !v.Filled || v.Anonymous || v.Labels["k"] != "v" {
					t.Errorf("%+v, %v, %v", v, created, err)
				}
				if v, err := s.Volume("bad"); err != nil || !v.Filled {
					t.Error(v, err)
				}
				if b, err := os.ReadFile(s.Path("volumes", "bad", "data", "f")); err != nil || string(b) != "x" {
					t.Errorf("%q, %v", b, err)
				}
				if err := with("bad"); err != nil {
					t.Error(err)
				}
				all, err := s.Containers()
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range all {
					remove(t, s, c.Name)
				}
				h.to(t, path)
			}
			if err := s.RemoveVolume("bad", false); err != nil {
				t.Error(err)
			}
			if _, err := s.Volume("bad"); !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
			// One that was being filled still is to be.
			for _, name := range []string{"data", "ready"} {
				if err := os.MkdirAll(s.Path("volumes", "half", name), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if v, _, err := s.CreateVolume("half", nil); err != nil || v.Filled {
				t.Error(v, err)
			}
		})
	}
}
