package container

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// victim is a command that is killed at many moments.
type victim struct {
	args   []string
	before [][]string // what makes it possible
	after  [][]string // what must work afterwards, however far it came, and leaves the store as it was
}

// Any command may be killed at any moment: the next ones find a store that works, and nothing of it is left. (Of
// load, commit and the filling of volumes there are tests of their own. Images of the same content made in different
// seconds are two images: where the removal did not come to pass, the first has lost its name to the second.)
func TestAnyCommandKilled(t *testing.T) {
	both(t, func(t *testing.T, c *harness.CLI) {
		dir := filepath.Dir(c.Root)
		ref := pushed(t)
		box := []string{"run", "-d", "--name", "box", "-v", "vol:/srv", "app:v1", "sh", "-c", "echo x > /x; trap exit TERM; while :; do sleep 0.05; done"}
		gone := [][]string{{"rm", "-f", "-v", "box"}, {"volume", "prune", "-a"}}
		for _, v := range []victim{
			{[]string{"image", "pull", "-q", ref}, nil, [][]string{{"image", "pull", "-q", ref}, {"run", "--rm", ref, "cat", "/etc/last"}, {"image", "rm", ref}}},
			{[]string{"image", "save", "-o", dir + "/out.tar", "app:v1"}, nil, [][]string{{"image", "load", "-q", dir + "/again.tar"}}},
			{[]string{"image", "save", "-o", dir + "/out", "app:v1"}, nil, [][]string{{"image", "ls"}}},
			{[]string{"image", "rm", "more:v1"}, [][]string{{"commit", "kept", "more:v1"}}, [][]string{{"image", "prune"}, {"commit", "kept", "more:v1"}, {"run", "--rm", "more:v1", "cat", "/new"}, {"image", "rm", "more:v1"}, {"image", "prune"}}},
			{box, nil, append(gone[:2:2], append(append([]string{"run", "--rm"}, box[4:7]...), "true"), gone[1])},
			{[]string{"create", "--name", "box", "-v", "vol:/data", "app:v1", "cat", "/data/list"}, nil, gone},
			{[]string{"start", "box"}, [][]string{append([]string{"create"}, box[2:]...)}, append([][]string{{"start", "box"}, {"exec", "box", "true"}, {"stop", "-t", "5", "box"}}, gone...)},
			{[]string{"exec", "box", "sh", "-c", "echo y > /y"}, [][]string{box}, append([][]string{{"exec", "box", "true"}, {"stop", "-t", "5", "box"}}, gone...)},
			{[]string{"stop", "-t", "5", "box"}, [][]string{box}, append([][]string{{"stop", "-t", "5", "box"}, {"start", "box"}}, gone...)},
			{[]string{"rm", "-f", "-v", "box"}, [][]string{box}, gone},
			{[]string{"volume", "create", "new"}, nil, [][]string{{"volume", "ls"}, {"run", "--rm", "-v", "new:/data", "app:v1", "cat", "/data/list"}, {"volume", "rm", "new"}}},
			{[]string{"volume", "rm", "old"}, [][]string{{"run", "--rm", "-v", "old:/data", "app:v1", "true"}}, [][]string{{"volume", "ls"}, {"run", "--rm", "-v", "old:/data", "app:v1", "cat", "/data/list"}, {"volume", "rm", "old"}}},
		} {
			if quick := v.args[0] == "run" || v.args[0] == "rm" || v.args[1] == "pull"; c.As == nil || quick {
				v.kill(t, c, dir)
			}
		}
	})
}

// Whoever waits outside the user namespace may be killed before its death is that of the command inside, which then ends by
// itself: a container that is made when nobody waits for it any more is one that nobody removes.
func TestKilledBeforeTheCommand(t *testing.T) {
	c := store(t)
	cmd := c.Command("volume", "create", "late")
	cmd.Env = append(cmd.Env, "PLYFS_USERNS=inside", "PLYFS_USERNS_PARENT=1")
	var exit *exec.ExitError
	if out, err := cmd.CombinedOutput(); !errors.As(err, &exit) || exit.ExitCode() != 128+9 {
		t.Errorf("plyfs volume create: %v\n%s", err, out)
	}
	c.Want("", "volume", "ls", "-q")
}

// kill kills the command at so many moments of its life.
func (v *victim) kill(t *testing.T, c *harness.CLI, dir string) {
	t.Helper()
	if v.args[1] == "rm" && v.args[0] == "image" {
		c.Do("run", "--name", "kept", "app:v1", "sh", "-c", "echo x > /new")
		defer c.Do("rm", "kept")
	}
	const moments = 3
	middle := 0
	var whole time.Duration
	// The first run is measured; where that is slow by chance, a command may end before all of the moments.
	for n := 0; n <= moments || middle == 0 && n <= 10*moments; n++ {
		for _, args := range v.before {
			c.Do(args...)
		}
		cmd := c.Command(v.args...)
		began := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			time.Sleep(whole * time.Duration((n-1)%moments+1) / (moments + 1) / time.Duration((n-1)/moments+1))
			_ = cmd.Process.Kill()
		}
		if err := cmd.Wait(); err != nil {
			middle++
			if n == 0 {
				t.Errorf("plyfs %v: %v", v.args, err)
			}
		} else if n == 0 {
			whole = time.Since(began)
		}
		if v.args[1] == "save" {
			v.saved(t, c, dir)
		}
		for _, args := range v.after {
			if out, err := c.Command(args...).CombinedOutput(); err != nil {
				t.Errorf("plyfs %v was killed in run %d; then plyfs %v: %v\n%s", v.args, n, args, err, out)
			}
		}
		v.nothing(t, c)
	}
	if middle == 0 {
		t.Errorf("plyfs %v was never killed before its end", v.args)
	}
}

// saved looks at what a save that was killed has left: all of it, or nothing under its name. (Beside it there may be
// the beginning, under a name with a dot in front.)
func (v *victim) saved(t *testing.T, c *harness.CLI, dir string) {
	t.Helper()
	path := v.args[3]
	if _, err := os.Stat(path); err == nil {
		other := &harness.CLI{T: t, As: c.As, Root: dir + "/other"}
		other.Do("image", "load", "-q", path)
		if err := os.RemoveAll(path); err != nil {
			t.Error(err)
		}
	}
	again := filepath.Dir(path) + "/again.tar"
	_ = os.Remove(again)
	c.Do("image", "save", "-o", again, "app:v1")
}

// nothing fails the test if the store has more than app:v1 (and the container kept), or if something of it is still
// mounted or runs.
func (v *victim) nothing(t *testing.T, c *harness.CLI) {
	t.Helper()
	has := strings.ReplaceAll(c.Do("ps", "-a", "-q"), "kept\n", "") + c.Do("volume", "ls", "-q") + strings.Join(names(c.Root+"/staging"), " ")
	if has != "" {
		t.Errorf("after plyfs %v was killed: left %q", v.args, has)
	}
	if list := names(c.Root + "/layers"); len(list) != 2 {
		t.Errorf("after plyfs %v was killed: layers %v", v.args, list)
	}
	for _, kind := range []string{"/containers", "/volumes"} {
		for _, name := range names(c.Root + kind) {
			if name != "kept" {
				t.Errorf("after plyfs %v was killed: %s has %s", v.args, kind, name)
			}
		}
	}
	await(t, "the daemons' end", func() bool { return len(processes("keep-container", c.Root)) == 0 })
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(b), c.Root) {
		t.Errorf("after plyfs %v was killed: still mounted (%v)", v.args, err)
	}
}

// pushed is the name of an image of many layers in a registry.
func pushed(t *testing.T) string {
	t.Helper()
	dir := harness.Dir(t)
	layers := [][]imagetest.Entry{imagetest.Busybox(t, "sh cat")}
	for _, name := range []string{"a", "b", "c", "d"} {
		layers = append(layers, imagetest.Tree("d etc\nF etc/"+name+" 1M"))
	}
	layers = append(layers, imagetest.Tree("d etc\nf etc/last x"))
	imagetest.WriteLayout(t, dir+"/in", &imagetest.Image{How: "gzip", Layers: layers})
	ref := imagetest.Registry(t, "", "") + "/team/many:v1"
	imagetest.Push(t, dir+"/in", ref)
	return ref
}
