package container

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// boxes makes a container that has run, one that runs with a volume, and an image with a link that means a file of
// the container and not of the host.
func boxes(t *testing.T, c *harness.CLI) {
	t.Helper()
	c.Do("run", "--name", "old", "app:v1", "sh", "-c", "echo hi > /note; rm -f /data/list; mkdir -p /real; echo x > /real/list")
	c.Do("run", "-d", "--name", "live", "-v", "vol:/data", "app:v1", "sh", "-c",
		"echo a > /data/made; echo b > /made; while :; do sleep 0.05; done")
	t.Cleanup(func() { c.Do("rm", "-f", "old", "live") })
	await(t, "the files of the running one", func() bool { return strings.Contains(c.Do("diff", "live"), "/made") })
}

// The commands that look into mounts take a container for one, whether it runs or not, and leave it as it was.
func TestLookAtContainers(t *testing.T) {
	both(t, func(t *testing.T, c *harness.CLI) {
		boxes(t, c)
		c.Want("C /data\nD /data/list\nA /note\nA /real\nA /real/list\n", "diff", "old")
		c.Want("A /made\n", "diff", "live")
		for _, tt := range []struct{ want, args string }{
			{"list  [deleted by upper]", "tree old"},
			{"└── list  [upper]", "tree old:/real"},
			{"made  [volume]", "tree live:data"},
			{"data/  [volume]", "tree --level 1 live"},
			{"/note (file)", "explain old:/note"},
			{"/ (directory)", "explain old"},
			{"upper has a whiteout", "explain old:/data/list"},
			{"/real/list (file)", "explain old:/data/../../../real/list"},
			{"It comes from the volume vol", "explain live:/data/made"},
			{"upper", "stat live"},
			{"/containers/old/upper: ", "check old"},
			{"/containers/live/work: ", "check live"},
			{"", "settle old"},
			{"", "settle live"},
		} {
			if out := c.Do(strings.Fields(tt.args)...); !strings.Contains(out, tt.want) {
				t.Errorf("%s: no %q in\n%s", tt.args, tt.want, out)
			}
		}
		for _, args := range []string{"diff old", "diff live", "tree old", "explain live:/made", "explain old:/note live:/data/made old:/gone", "stat live", "settle old", "settle live", "check old"} {
			if out := c.Do(append(strings.Fields(args), "--json")...); !json.Valid([]byte(out)) {
				t.Errorf("%s --json: %s", args, out)
			}
		}
		for args, reason := range map[string]string{
			"stat old":            "container old does not run, and is not mounted: plyfs start old",
			"watch old":           "does not run",
			"umount old":          "container old is not mounted",
			"umount live":         "plyfs stop live ends that",
			"stat nosuch":         "nosuch: no such file or directory, and there is no container of that name",
			"explain old:/no/way": "old:/no/way: no such file or directory",
			"diff old:/no/way":    "old:/no/way: no such file or directory",
			"tree live:/no":       "live:/no: no such file or directory",
		} {
			c.Fails(reason, strings.Fields(args)...)
		}
		c.Ends(2, "diff", "old", "live")
		c.Ends(2, "look-container", "/", "rm", "old")
		// The end of the view is waited for: the next command has the container to itself.
		c.Want("", "start", "-a", "old")
		await(t, "the end of all daemons", func() bool {
			return len(append(processes("look-container", c.Root), processes("keep-container", c.Root+"\x00old")...)) == 0
		})
	})
}

// Many may look at one container at once, also while it starts and stops.
func TestManyLookAtOneContainer(t *testing.T) {
	c := store(t)
	c.Do("run", "--name", "one", "app:v1", "sh", "-c", "echo x > /note")
	defer c.Do("rm", "-f", "one")
	var running sync.WaitGroup
	for range 6 {
		running.Go(func() {
			for range 4 {
				if out, err := c.Command("diff", "one").CombinedOutput(); err != nil || string(out) != "A /note\n" {
					t.Errorf("diff: %v: %s", err, out)
				}
				if out, err := c.Command("explain", "--json", "one:/note", "one:/gone").CombinedOutput(); err != nil || !json.Valid(out) {
					t.Errorf("explain: %v: %s", err, out)
				}
			}
		})
	}
	for range 4 {
		c.Do("start", "one")
		c.Do("stop", "one")
	}
	running.Wait()
}

// Who only looks at a container that does not run changes nothing of it, not even what is still to be done.
func TestLookChangesNothing(t *testing.T) {
	c := store(t)
	c.Do("image", "load", layout(t, imagetest.Tree("f big "+strings.Repeat("x", 1<<20))))
	c.Do("create", "--name", "one", "app:v1", "true")
	defer c.Do("rm", "-f", "one")
	view := harness.Dir(t)
	c.Do("mount", "--container", "one", "--no-settle", "--settle-budget", "off", view)
	f, err := os.OpenFile(view+"/big", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("y"), 5000); err != nil {
		t.Error(err)
	}
	f.Close()
	c.Do("umount", view)
	before := writable(t, c, "one")
	if !strings.Contains(before, "unfinished") {
		t.Errorf("nothing is unfinished: %s", before)
	}
	for _, args := range []string{"check one", "diff one", "tree one", "explain one:/big"} {
		c.Do(strings.Fields(args)...)
		if after := writable(t, c, "one"); after != before {
			t.Errorf("%s changed the writable layer from\n%s to\n%s", args, before, after)
		}
	}
	c.Do("settle", "one")
	if after := writable(t, c, "one"); strings.Contains(after, "unfinished") {
		t.Errorf("after settle: %s", after)
	}
}

// writable says what is in the writable layer of a container, with times, and in its work directory.
func writable(t *testing.T, c *harness.CLI, name string) string {
	t.Helper()
	dir := c.Root + "/containers/" + name
	text := c.Do("check", dir+"/upper")
	for _, args := range [][]string{{dir + "/upper", "-printf", "%P %y %m %s %T@ %b\n"}, {dir + "/work", "-printf", "%P %y %m %s\n"}} {
		out, err := exec.Command("find", args...).Output()
		if err != nil {
			t.Fatal(err)
		}
		text += string(out)
	}
	return text
}

// A path comes before a container, and what the links in a container mean is in it.
func TestLookAtPathsAndLinks(t *testing.T) {
	c := store(t)
	boxes(t, c)
	dir := harness.Dir(t)
	if err := os.Mkdir(dir+"/old", 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := c.Command("diff", "old")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); harness.ExitCode(err) != 1 || !strings.Contains(string(out), "old: not in a plyfs mount") {
		t.Errorf("%v: %s", err, out)
	}
	id := strings.Fields(c.Do("ps", "-a"))
	for i, f := range id {
		if f == "old" {
			if out := c.Do("diff", id[i+1]); !strings.Contains(out, "A /note") {
				t.Errorf("by id: %s", out)
			}
		}
	}
	c.Do("run", "--name", "links", "app:v1", "sh", "-c", "mkdir /etc; echo x > /etc/passwd")
	defer c.Do("rm", "links")
	if err := os.Symlink("/etc", c.Root+"/containers/links/upper/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../../../..", c.Root+"/containers/links/upper/up"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"links:/link/passwd", "links:link/passwd", "links:/up/etc/passwd", "links:/up/link/../link/passwd"} {
		if out := c.Do("explain", path); !strings.HasPrefix(out, "/etc/passwd (file)") {
			t.Errorf("%s: %s", path, out)
		}
	}
	if out := c.Do("explain", "links:/link"); !strings.HasPrefix(out, "/link (symlink)") {
		t.Errorf("%s", out)
	}
}

// One that is mounted is asked there, and ends by its name.
func TestLookAtMountedContainers(t *testing.T) {
	both(t, func(t *testing.T, c *harness.CLI) {
		boxes(t, c)
		view := harness.Dir(t)
		if c.As != nil {
			view = c.As.Home + "/view"
			if err := os.Mkdir(view, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(view, int(c.As.ID), int(c.As.ID)); err != nil {
				t.Fatal(err)
			}
		}
		c.Do("mount", "--container", "old", view)
		for args, want := range map[string]string{
			"diff old":                          "A /note",
			"explain old:/data/list live:/made": "upper has a whiteout",
			"tree old:real":                     "list  [upper]",
			"stat old":                          "upper",
			"check old":                         "/containers/old/upper",
			"settle old":                        "",
		} {
			if out := c.Do(strings.Fields(args)...); !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", args, want, out)
			}
		}
		c.Want("", "umount", "old")
		c.Fails("is not mounted", "umount", "old")
	})
}

// Nor does it matter which mount namespace has the view.
func TestLookIntoOtherNamespaces(t *testing.T) {
	harness.NeedTool(t, "unshare")
	c := store(t)
	elsewhere := func(args ...string) {
		t.Helper()
		cmd := c.Command(args...)
		there := exec.Command("unshare", append([]string{"--mount", "--propagation", "private", cmd.Path}, args...)...)
		there.Env = cmd.Env
		if out, err := there.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	c.Do("run", "--name", "old", "app:v1", "touch", "/note")
	defer c.Do("rm", "-f", "old", "live")
	elsewhere("run", "-d", "--name", "live", "app:v1", "sh", "-c", "touch /note; while :; do sleep 0.05; done")
	elsewhere("mount", "--container", "old", harness.Dir(t))
	await(t, "the file of the running one", func() bool { return c.Do("diff", "live") == "A /note\n" })
	c.Want("A /note\n", "diff", "old")
	if out := c.Do("explain", "live:/note", "old:/note"); strings.Count(out, "The upper has it") != 2 {
		t.Errorf("explain: %s", out)
	}
	c.Fails("in another mount namespace", "umount", "old")
	var list []struct {
		Name  string
		State struct{ Daemon int }
	}
	if err := json.Unmarshal([]byte(c.Do("ps", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Name == "old" {
			if err := unix.Kill(e.State.Daemon, unix.SIGTERM); err != nil {
				t.Error(err)
			}
		}
	}
	await(t, "the end of the mount", func() bool { return !strings.Contains(c.Do("ps"), "mounted") })
}

// plyfs watch of a container ends with it, or when the user has enough, of which the container's command does not
// hear; and what looks ends with who asked for it.
func TestWatchContainers(t *testing.T) {
	both(t, func(t *testing.T, c *harness.CLI) {
		var tree strings.Builder // for copy-ups until somebody watches
		for i := range 2000 {
			fmt.Fprintf(&tree, "f many/%04d x\n", i)
		}
		c.Do("image", "load", layout(t, imagetest.Tree("d many\n"+tree.String())))
		c.Do("run", "-d", "--name", "live", "app:v1", "sh", "-c", "for f in /many/*; do touch $f; sleep 0.02; done; while :; do sleep 1; done")
		t.Cleanup(func() { c.Do("rm", "-f", "live") })
		for _, how := range []string{"interrupt", "kill", "stop"} {
			cmd := c.Command("watch", "--json", "live")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := make(chan string, 16)
			go func() {
				defer close(lines)
				for in := bufio.NewScanner(out); in.Scan(); {
					lines <- in.Text()
				}
			}()
			select {
			case line := <-lines:
				if !json.Valid([]byte(line)) {
					t.Errorf("%s: %q", how, line)
				}
			case <-time.After(time.Minute):
				t.Errorf("%s: nothing to see", how)
			}
			switch how {
			case "interrupt":
				err = cmd.Process.Signal(unix.SIGINT)
			case "kill":
				err = cmd.Process.Kill()
			case "stop":
				c.Do("stop", "-t", "0", "live")
			}
			if err != nil {
				t.Error(err)
			}
			for range lines {
			}
			if code := harness.ExitCode(cmd.Wait()); (code == 0) != (how != "kill") {
				t.Errorf("%s: exit code %d", how, code)
			}
			await(t, "the end of what looked", func() bool { return len(processes("look-container", c.Root)) == 0 })
			if out := c.Do("ps"); strings.Contains(out, "live") != (how != "stop") {
				t.Errorf("%s: %s", how, out)
			}
		}
	})
}
