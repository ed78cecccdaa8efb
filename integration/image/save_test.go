package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// saveable is a store with an image of so many bytes that nothing makes smaller.
func saveable(t *testing.T, size int64) (c *harness.CLI, dir string) {
	t.Helper()
	harness.NeedRoot(t)
	dir = harness.Dir(t)
	imagetest.WriteLayout(t, dir+"/in", &imagetest.Image{Name: "app:v1", Layers: [][]imagetest.Entry{{imagetest.File("big", 0o644, harness.Bytes(size))}}})
	c = &harness.CLI{T: t, Root: dir + "/store"}
	c.Do("image", "load", dir+"/in")
	return c, dir
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		if e.Name() != "lost+found" {
			list = append(list, e.Name())
		}
	}
	return strings.Join(list, " ")
}

// A save that fails names what it was to write, and leaves what was there, and nothing else.
func TestSaveFails(t *testing.T) {
	c, _ := saveable(t, 24<<20)
	for _, kind := range []string{"ext4", "tmpfs"} {
		full := harness.Filesystem(t, kind, 96<<20)
		free := fill(t, full, 8<<20)
		for _, name := range []string{"out.tar", "out"} {
			path := filepath.Join(full, name)
			c.Fails(path+": no space left on device", "image", "save", "-o", path, "app:v1")
			if got := names(t, full); got != "fill" {
				t.Errorf("left: %s", got)
			}
		}
		if err := os.WriteFile(full+"/out.tar", []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		c.Fails(full+"/out.tar: no space left on device", "image", "save", "-o", full+"/out.tar", "app:v1")
		if b, err := os.ReadFile(full + "/out.tar"); err != nil || string(b) != "old" {
			t.Errorf("%q, %v", b, err)
		}
		free()
		c.Do("image", "save", "-o", full+"/out.tar", "app:v1")
		c.Do("image", "save", "-o", full+"/out", "app:v1")
		if got := names(t, full); got != "out out.tar" {
			t.Errorf("left: %s", got)
		}
	}
	c.Fails("none/out.tar: no such file or directory", "image", "save", "-o", "none/out.tar", "app:v1")
	c.Fails("none/out: no such file or directory", "image", "save", "-o", "none/out", "app:v1")
}

// fill leaves no more than so many bytes on a filesystem, until free.
func fill(t *testing.T, dir string, rest int64) (free func()) {
	t.Helper()
	f, err := os.Create(dir + "/fill")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := harness.Bytes(1 << 20)
	for {
		if _, err := f.Write(b); err != nil {
			break
		}
	}
	st, err := f.Stat()
	if err == nil {
		err = f.Truncate(st.Size() - rest)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(dir + "/fill"); err != nil {
			t.Fatal(err)
		}
	}
}

// Killed, a save of an archive leaves nothing beside it; what one of a directory leaves goes with the next.
func TestSaveKilled(t *testing.T) {
	c, dir := saveable(t, 48<<20)
	for _, name := range []string{"out.tar", "out"} {
		to := dir + "/" + name + "-dir"
		if err := os.Mkdir(to, 0o755); err != nil {
			t.Fatal(err)
		}
		// While it packs: a blob is there.
		pattern := to + "/.*/blobs/layer-*"
		if name == "out.tar" {
			pattern = c.Root + "/staging/save-*/blobs/layer-*"
		}
		for n := 0; !saveKilled(t, c, to+"/"+name, pattern); n++ { // on a machine with other things to do it may be too late
			if n == 20 {
				t.Fatal("it was always faster")
			}
			if err := os.RemoveAll(to + "/" + name); err != nil {
				t.Fatal(err)
			}
		}
		if got := names(t, to); name == "out.tar" && got != "" || name == "out" && !strings.HasPrefix(got, ".out.plyfs-") {
			t.Errorf("left: %q", got)
		}
		c.Do("image", "save", "-o", to+"/"+name, "app:v1")
		if got := names(t, to); got != name {
			t.Errorf("left: %q", got)
		}
		if left, err := os.ReadDir(c.Root + "/staging"); err != nil || len(left) > 0 {
			t.Errorf("staging: %v, %v", left, err)
		}
	}
}

// saveKilled starts a save and kills it once a file of this pattern is there. It is false if that was too late.
func saveKilled(t *testing.T, c *harness.CLI, to, pattern string) bool {
	t.Helper()
	cmd := c.Command("image", "save", "-o", to, "app:v1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("nobody killed it: %v", err)
			}
			return false
		case <-time.After(time.Millisecond):
		}
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			break
		}
	}
	_ = cmd.Process.Kill()
	err := <-done
	_, there := os.Lstat(to)
	return err != nil && there != nil
}
