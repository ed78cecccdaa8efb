package container

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// ballast takes all but so many bytes of a filesystem; the function it returns gives them back.
func ballast(t *testing.T, dir string, leave int64) func() {
	t.Helper()
	f, err := os.Create(dir + "/ballast")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var size int64
	for _, step := range []int{1 << 20, 4 << 10} {
		for err = nil; err == nil; {
			var n int
			n, err = f.Write(make([]byte, step))
			size += int64(n)
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size - leave); err != nil {
		t.Fatal(err)
	}
	return func() { _ = os.Remove(dir + "/ballast") }
}

// With a full disk every command says so in one line and leaves the store as it was; and does its
// work when there is room again.
func TestFullDisk(t *testing.T) {
	harness.NeedRoot(t)
	disk := harness.Filesystem(t, "ext4", 128<<20)
	c := storeIn(t, disk)
	big := layout(t, imagetest.Tree("d data\nF data/big 12M"))
	c.Do("run", "--name", "one", "app:v1", "dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=12")
	state := func() (all []string) {
		for _, kind := range []string{"images", "layers", "volumes", "staging"} {
			all = append(all, harness.Dump(t, c.Root+"/"+kind, false)...)
		}
		for _, name := range names(disk) {
			if name != "ballast" {
				all = append(all, name)
			}
		}
		return append(all, names(c.Root+"/containers")...)
	}
	for _, args := range [][]string{
		{"commit", "one", "app:v2"},
		{"image", "save", "-o", disk + "/out.tar", "app:v2"},
		{"image", "save", "-o", disk + "/out", "app:v2"},
		{"image", "load", "-q", "--name", "big:v1", big},
		{"run", "--rm", "-v", "vol:/data", "big:v1", "true"},
	} {
		before := state()
		free := ballast(t, disk, 4<<20)
		c.Fails("no space left on device", args...)
		if diff := cmp.Diff(before, state()); diff != "" {
			t.Errorf("plyfs %v changed the store:\n%s", args, diff)
		}
		free()
		c.Do(args...)
	}
	// The command in a container gets the error, and nobody else.
	free := ballast(t, disk, 1<<20)
	if out, err := c.Command("run", "--name", "two", "app:v1", "dd", "if=/dev/urandom", "of=/big", "bs=64k", "count=100").CombinedOutput(); err == nil || !strings.Contains(strings.ToLower(string(out)), "no space left") {
		t.Errorf("%v\n%s", err, out)
	}
	free()
	c.Do("start", "-a", "two")
	c.Do("rm", "one", "two")
	// Not a block left: nothing can be made, and what is there can be removed.
	free = ballast(t, disk, 0)
	c.Fails("plyfs image prune makes room", "run", "--rm", "app:v1", "true")
	c.Fails("plyfs image prune makes room", "volume", "create", "new")
	packed := harness.Dir(t) + "/app.tar.gz" // is unpacked into the store first
	if err := os.WriteFile(packed, imagetest.Compress(imagetest.Tar(imagetest.Tree("F a 8M")), "gzip"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Fails("plyfs image prune makes room", "image", "load", packed)
	free()
	c.Do("run", "--rm", "app:v1", "true")
}

// With not a block left what is there can be removed: that is what makes room.
func TestRemoveOnFullDisk(t *testing.T) {
	harness.NeedRoot(t)
	for _, filesystem := range []string{"ext4", "tmpfs"} {
		disk := harness.Filesystem(t, filesystem, 64<<20)
		c := storeIn(t, disk)
		image := layout(t, imagetest.Tree("f small x"))
		c.Do("image", "load", "-q", "--name", "other:v1", image)
		c.Do("image", "tag", "other:v1", "other:v2")
		c.Do("volume", "create", "vol")
		c.Do("volume", "create", "more")
		c.Do("run", "--name", "one", "-v", "/anonymous", "app:v1", "true")
		for _, args := range [][]string{
			{"image", "rm", "other:v2"},
			{"image", "rm", "other:v1"},
			{"volume", "rm", "vol"},
			{"volume", "prune", "-a"},
			{"rm", "-v", "one"},
			{"image", "prune", "-a"},
		} {
			free := ballast(t, disk, 0)
			if out, err := c.Command(args...).CombinedOutput(); err != nil {
				t.Errorf("%s: plyfs %v: %v\n%s", filesystem, args, err, out)
			}
			free()
		}
		for _, kind := range []string{"layers", "volumes", "containers", "staging"} {
			if left := names(c.Root + "/" + kind); len(left) > 0 {
				t.Errorf("%s: left in %s: %v", filesystem, kind, left)
			}
		}
		c.Want("[]\n", "image", "ls", "--json")
	}
}

// How a command ended that has filled the disk is known, also where a further file has no room.
func TestEndOnFullDisk(t *testing.T) {
	harness.NeedRoot(t)
	for _, filesystem := range []string{"ext4", "tmpfs"} {
		disk := harness.Filesystem(t, filesystem, 64<<20)
		c := storeIn(t, disk)
		c.Ends(7, "run", "--name", "one", "app:v1", "sh", "-c", "dd if=/dev/zero of=/big bs=4k 2>/dev/null; exit 7")
		if out := c.Do("ps", "-a"); !strings.Contains(out, "exited (7)") {
			t.Errorf("%s: %s", filesystem, out)
		}
		c.Do("rm", "one")
	}
}
