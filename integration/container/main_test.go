// Package container tests the life of containers: what happens to a running one, to one that is
// killed, and to the store when something goes wrong.
package container

import (
	"os"
	"testing"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

func TestMain(m *testing.M) { harness.Main(m) }

// store is one with app:v1 in it: a busybox, and nothing that a container would need of the kernel's.
func store(t *testing.T) *harness.CLI {
	t.Helper()
	return storeIn(t, harness.Dir(t))
}

func storeIn(t *testing.T, dir string) *harness.CLI {
	t.Helper()
	harness.NeedRoot(t)
	c := &harness.CLI{T: t, Root: dir + "/store"}
	c.Do("image", "load", layout(t, imagetest.Tree("d data\nf data/list welcome")))
	return c
}

// both runs a test as root and as an ordinary user, with a store that has app:v1 in it.
func both(t *testing.T, f func(t *testing.T, c *harness.CLI)) {
	t.Run("root", func(t *testing.T) { f(t, store(t)) })
	t.Run("user", func(t *testing.T) {
		c := &harness.CLI{T: t, As: harness.NewAccount(t)}
		c.Root = c.As.Home + "/store"
		c.Do("image", "load", layout(t, imagetest.Tree("d data\nf data/list welcome")))
		f(t, c)
	})
}

// layout writes an image app:v1 whose top layer has the given entries, and returns where.
func layout(t *testing.T, top []imagetest.Entry) string {
	t.Helper()
	dir := harness.Dir(t)
	if err := os.Chmod(dir, 0o755); err != nil { // users load it too
		t.Fatal(err)
	}
	path := dir + "/app"
	bottom := imagetest.Busybox(t, "sh cat ls stat sleep mkdir rm mv touch sort uniq dd true stty tty")
	imagetest.WriteLayout(t, path, &imagetest.Image{Name: "app:v1", Layers: [][]imagetest.Entry{bottom, top}})
	return path
}
