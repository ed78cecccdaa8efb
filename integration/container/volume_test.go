package container

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// A new volume is what the image has at that place, with everything that belongs to it, once.
func TestFilledWithEverything(t *testing.T) {
	harness.NeedRoot(t)
	c := &harness.CLI{T: t, Root: harness.Dir(t) + "/store"}
	path := harness.Dir(t) + "/app"
	imagetest.WriteLayout(t, path, &imagetest.Image{Name: "app:v1", Layers: [][]imagetest.Entry{
		imagetest.Busybox(t, "sh rm ls touch"),
		imagetest.Tree("d data\nf data/gone x\nd data/old\nf data/old/gone x\nf data/kept 1"),
		imagetest.Tree(`d data
m data 2750
u data 33 34
x data user.place here
w data/gone
o data/old
f data/old/new y
f data/set x
m data/set 6755
u data/set 5 6
x data/set user.colour blue
h data/other data/set
l data/link ../etc/passwd
p data/fifo
c data/null 1 3
F data/big 300k
d data/empty
m data/empty 1777`)}})
	c.Do("image", "load", path)
	c.Do("create", "--name", "one", "-v", "vol:/data", "app:v1", "sh", "-c", "rm -r /data/*")
	view := harness.Dir(t)
	c.Do("mount", "--image", "app:v1", view)
	want := harness.Dump(t, view+"/data", true)
	c.Do("umount", view)
	if diff := cmp.Diff(want, harness.Dump(t, c.Root+"/volumes/vol/data", true)); diff != "" {
		t.Errorf("the image (-), the volume (+):\n%s", diff)
	}
	// Emptied, it stays empty; and with nocopy it never gets anything.
	c.Do("start", "-a", "one")
	c.Want("", "run", "--rm", "-v", "vol:/data", "app:v1", "ls", "/data")
	c.Want("", "run", "--rm", "-v", "bare:/data:nocopy", "app:v1", "ls", "/data")
	// A volume that has something is left alone.
	c.Do("volume", "create", "mine")
	if err := os.WriteFile(c.Root+"/volumes/mine/data/mine", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.Want("mine\n", "run", "--rm", "-v", "mine:/data", "app:v1", "ls", "/data")
}

// A volume at an empty directory of the image has that one's owner, mode and attributes, or the user for whom it
// was made could not write to it. They are given once; and files of a later image still come into it.
func TestEmptyDirectory(t *testing.T) {
	both(t, func(t *testing.T, c *harness.CLI) {
		c.Do("image", "load", layout(t, imagetest.Tree("d data\nm data 2750\nu data 33 34\nx data user.colour blue")))
		const look = "stat -c '%a %u %g' /data"
		c.Want("2750 33 34\n", "run", "--rm", "-u", "33", "-v", "vol:/data", "app:v1", "sh", "-c", "touch /data/x && rm /data/x && "+look)
		c.Want("2750 33 34\n", "run", "--rm", "-v", "/data", "app:v1", "sh", "-c", look)
		c.Want("755 0 0\n", "run", "--rm", "-v", "bare:/data:nocopy", "app:v1", "sh", "-c", look)
		val := make([]byte, 10)
		if n, err := unix.Getxattr(c.Root+"/volumes/vol/data", "user.colour", val); err != nil || string(val[:n]) != "blue" {
			if c.As == nil || err != unix.EACCES {
				t.Errorf("attribute: %q, %v", val, err)
			}
		}
		c.Do("run", "--rm", "-v", "vol:/data", "app:v1", "sh", "-c", "chown 5 /data; chmod 700 /data")
		c.Want("700 5 34\n", "run", "--rm", "-v", "vol:/data", "app:v1", "sh", "-c", look)
		c.Do("image", "load", layout(t, imagetest.Tree("d data\nm data 711\nf data/it x")))
		c.Want("it\n711 0 0\n", "run", "--rm", "-v", "vol:/data", "app:v1", "sh", "-c", "ls /data; "+look)
	})
}

// An anonymous volume lives as long as somebody uses it, and no longer than rm -v or --rm lets it.
func TestAnonymousVolumes(t *testing.T) {
	c := store(t)
	volumes := func() int { return strings.Count(c.Do("volume", "ls", "-q"), "\n") }
	want := func(n int, after string) {
		t.Helper()
		if got := volumes(); got != n {
			t.Errorf("after %s: %d volumes, want %d", after, got, n)
		}
	}
	c.Do("run", "--rm", "-v", "/data", "app:v1", "true")
	want(0, "run --rm")
	c.Do("run", "--name", "one", "-v", "/data", "-v", "/more", "app:v1", "true")
	c.Do("run", "--name", "two", "--volumes-from", "one", "app:v1", "true")
	want(2, "two containers")
	name := strings.Fields(c.Do("volume", "ls", "-q"))[0]
	c.Fails("in use by one, two: remove the containers first", "volume", "rm", name)
	c.Do("rm", "-v", "one")
	want(2, "the first user went")
	c.Do("rm", "two")
	want(2, "rm without -v")
	c.Do("volume", "prune")
	want(0, "prune")
}

// Of several containers whose volumes are taken, the last one named has a target; what is said by itself comes before
// them all; and :ro takes the writing from what was writable, but gives it to nothing.
func TestVolumesFromSeveral(t *testing.T) {
	c := store(t)
	c.Do("create", "--name", "one", "-v", "first:/x", "-v", "shared:/y:ro", "app:v1", "true")
	c.Do("create", "--name", "two", "-v", "second:/x", "app:v1", "true")
	write := []string{"app:v1", "sh", "-c", "echo . > /x/it; touch /y/it"}
	with := func(flags ...string) []string { return append(append([]string{"run", "--rm"}, flags...), write...) }
	c.Fails("/y/it: Read-only", with("--volumes-from", "one", "--volumes-from", "two")...)
	c.Want("it\n", "run", "--rm", "-v", "second:/s", "app:v1", "ls", "/s")
	c.Want("", "run", "--rm", "-v", "first:/f", "app:v1", "ls", "/f")
	c.Fails("/x/it: Read-only", "run", "--rm", "--volumes-from", "two", "--volumes-from", "two:ro", "app:v1", "touch", "/x/it")
	c.Do(with("--volumes-from", "one:ro", "-v", "mine:/x", "-v", "own:/y")...)
}

const many = 300

// manyFiles is a store whose image has a directory with many files.
func manyFiles(t *testing.T) *harness.CLI {
	t.Helper()
	harness.NeedRoot(t)
	c := &harness.CLI{T: t, Root: harness.Dir(t) + "/store"}
	var text strings.Builder
	text.WriteString("d data\n")
	for n := range many {
		fmt.Fprintf(&text, "F data/f%d 20k\n", n)
	}
	c.Do("image", "load", layout(t, imagetest.Tree(text.String())))
	return c
}

// Killed in the middle of filling, at any moment, the next container finds the volume whole.
func TestFillKilled(t *testing.T) {
	c := manyFiles(t)
	c.Do("run", "--rm", "-v", "whole:/data", "app:v1", "true")
	want := harness.Dump(t, c.Root+"/volumes/whole/data", true)
	middle := 0
	for n := 0; n < 12 || middle < 4 && n < 60; n++ { // more where the machine has other things to do: it may be too late then
		vol := fmt.Sprintf("vol%d", n)
		cmd := c.Command("run", "--rm", "-v", vol+":/data", "app:v1", "true")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stage := c.Root + "/volumes/" + vol + []string{"/fill/f1", "/fill/f250", "/ready"}[n%3]
		await(t, "the filling", func() bool {
			_, err := os.Lstat(stage)
			return err == nil || len(names(c.Root+"/volumes/"+vol+"/data")) > 0
		})
		time.Sleep(time.Duration(n%12) * 300 * time.Microsecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if len(names(c.Root+"/volumes/"+vol+"/data")) < many {
			middle++
		}
		c.Do("run", "--rm", "-v", vol+":/data", "app:v1", "true")
		if diff := cmp.Diff(want, harness.Dump(t, c.Root+"/volumes/"+vol+"/data", true)); diff != "" {
			t.Fatalf("killed at %s: want (-), got (+):\n%.2000s", stage, diff)
		}
		if left := names(c.Root + "/volumes/" + vol); len(left) > 3 {
			t.Errorf("left: %v", left)
		}
	}
	if middle < 4 {
		t.Errorf("only %d were killed in the middle", middle)
	}
}

func names(dir string) (out []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// Containers that start at once on one new volume find it filled once: what one of them wrote stays.
func TestFilledOnceByManyAtOnce(t *testing.T) {
	c := manyFiles(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			out, err := c.Command("run", "--rm", "-v", "vol:/data", "app:v1", "sh", "-c",
				"echo line >> /data/log; for f in /data/f*; do stat -c %s $f; done | sort | uniq -c").CombinedOutput()
			if f := strings.Fields(string(out)); err != nil || len(f) != 2 || f[0] != fmt.Sprint(many) {
				t.Errorf("%v\n%s", err, out)
			}
		}()
	}
	wg.Wait()
	if b, err := os.ReadFile(c.Root + "/volumes/vol/data/log"); string(b) != strings.Repeat("line\n", 4) {
		t.Errorf("%q, %v", b, err)
	}
}

// Commands of every kind at once, on one store: each does what it would do alone.
func TestManyCommandsAtOnce(t *testing.T) {
	c := store(t)
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			name := fmt.Sprintf("box%d", n)
			for _, args := range [][]string{
				{"run", "--name", name, "-v", name + ":/srv", "app:v1", "sh", "-c", "echo x > /new"},
				{"commit", name, name + ":v1"},
				{"image", "prune"},
				{"volume", "prune"},
				{"run", "--rm", name + ":v1", "cat", "/new"},
				{"ps", "-a"},
				{"rm", name},
				{"image", "rm", name + ":v1"},
				{"volume", "rm", name},
			} {
				if out, err := c.Command(args...).CombinedOutput(); err != nil {
					t.Errorf("plyfs %v: %v\n%s", args, err, out)
				}
			}
		}()
	}
	wg.Wait()
	c.Want("", "ps", "-a", "-q")
	c.Want("", "volume", "ls", "-q")
	if got := names(c.Root + "/layers"); len(got) != 2 {
		t.Errorf("layers %v", got)
	}
	if got := names(c.Root + "/staging"); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	// Of two for one name, one gets it.
	var errs [2]error
	for n := range errs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[n] = c.Command("create", "--name", "one", "app:v1", "true").Run()
		}()
	}
	wg.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Errorf("two creations of one name: %v, %v", errs[0], errs[1])
	}
}

// A VOLUME of the image, or what another container has, gives way to a mount at the same place, also where a link of the
// image leads there: with /run and /var/run as VOLUMEs there was no way to run it.
func TestVolumesAtOnePlace(t *testing.T) {
	harness.NeedRoot(t)
	c := &harness.CLI{T: t, Root: harness.Dir(t) + "/store"}
	dir := harness.Dir(t)
	imagetest.WriteLayout(t, dir+"/app", &imagetest.Image{Name: "app:v1",
		Config: v1.Config{Volumes: map[string]struct{}{"/run": {}, "/var/run": {}}},
		Layers: [][]imagetest.Entry{imagetest.Busybox(t, "sh cat true"), imagetest.Tree("d run\nf run/it image\nd var\nl var/run ../run")}})
	c.Do("image", "load", dir+"/app")
	mounts := func(name string) (out []string) {
		var all []struct {
			Name   string
			Mounts []struct{ Source, Target string }
		}
		if err := json.Unmarshal([]byte(c.Do("ps", "-a", "--json")), &all); err != nil {
			t.Fatal(err)
		}
		for _, box := range all {
			if box.Name == name {
				for _, m := range box.Mounts {
					out = append(out, m.Source+":"+m.Target)
				}
			}
		}
		return out
	}
	c.Want("image", "run", "--name", "plain", "app:v1", "cat", "/var/run/it")
	if got := mounts("plain"); len(got) != 1 || !strings.HasSuffix(got[0], ":/run") {
		t.Errorf("the image's own: %q", got)
	}
	c.Want("new\n", "run", "--name", "named", "-v", "mine:/var/run", "app:v1", "sh", "-c", "echo new > /run/it; cat /var/run/it")
	if got := mounts("named"); len(got) != 1 || got[0] != "mine:/var/run" {
		t.Errorf("a named one instead: %q", got)
	}
	c.Want("new\n", "run", "--rm", "--volumes-from", "named", "app:v1", "cat", "/run/it")
	c.Do("run", "--name", "other", "--volumes-from", "named", "-v", "else:/run", "app:v1", "true")
	if got := mounts("other"); len(got) != 1 || got[0] != "else:/run" {
		t.Errorf("beside --volumes-from: %q", got)
	}
	c.Fails("two grafts for one target", "run", "--rm", "-v", "mine:/run", "-v", "else:/var/run", "app:v1", "true")
}

// An image of no layers has volumes, too: it is what carries those of others.
func TestVolumeOfNoLayers(t *testing.T) {
	c := store(t)
	dir := harness.Dir(t)
	imagetest.WriteLayout(t, dir+"/data", &imagetest.Image{Name: "data:v1", Config: v1.Config{Volumes: map[string]struct{}{"/data": {}}, Cmd: []string{"none"}}})
	c.Do("image", "load", dir+"/data")
	c.Do("create", "--name", "data", "data:v1")
	c.Do("run", "--rm", "--volumes-from", "data", "app:v1", "sh", "-c", "echo kept > /data/it")
	c.Want("kept\n", "run", "--rm", "--volumes-from", "data", "app:v1", "cat", "/data/it")
	c.Do("rm", "-v", "data")
	c.Want("", "volume", "ls", "-q")
}
