package container

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/integration/harness"
)

// What prints names prints JSON, too: a container or volume that was made as an object, what several were asked for as
// one array.
func TestJSON(t *testing.T) {
	c := store(t)
	defer c.Do("rm", "-f", "one", "two")
	type entry struct {
		Name  string
		State struct{ Status string }
	}
	read := func(into any, args string) {
		t.Helper()
		out := c.Do(strings.Fields(args)...)
		if err := json.Unmarshal([]byte(out), into); err != nil {
			t.Fatalf("%s: %v: %s", args, err, out)
		}
	}
	entries := func(status, args string, names ...string) {
		t.Helper()
		var list []entry
		read(&list, args)
		var got []string
		for _, e := range list {
			got = append(got, e.Name)
			if e.State.Status != status {
				t.Errorf("%s: %s is %s", args, e.Name, e.State.Status)
			}
		}
		if diff := cmp.Diff(names, got); diff != "" {
			t.Errorf("%s: %s", args, diff)
		}
	}
	var one entry
	read(&one, "create --json --name one app:v1 sleep 1000")
	if one.Name != "one" || one.State.Status != "created" {
		t.Errorf("create: %+v", one)
	}
	if out := c.Do("ps", "-a", "--json"); strings.Contains(out, "null") {
		t.Errorf("a list that is empty is null: %s", out)
	}
	read(&one, "run -d --json --name two app:v1 sleep 1000")
	if one.Name != "two" || one.State.Status != "running" {
		t.Errorf("run -d: %+v", one)
	}
	entries("running", "start --json one two", "one", "two")
	entries("exited", "stop --json -t 0 one two", "one", "two")
	var names []string
	read(&names, "rm --json one two")
	if diff := cmp.Diff([]string{"one", "two"}, names); diff != "" {
		t.Errorf("rm: %s", diff)
	}
	read(&names, "rm -f --json one")
	if len(names) > 0 {
		t.Errorf("rm of nothing: %q", names)
	}
	var volume struct {
		Name  string
		Users []string
	}
	read(&volume, "volume create --json -l a=b vv")
	if volume.Name != "vv" || volume.Users == nil {
		t.Errorf("volume create: %+v", volume)
	}
	read(&names, "volume rm --json vv")
	if diff := cmp.Diff([]string{"vv"}, names); diff != "" {
		t.Errorf("volume rm: %s", diff)
	}
	c.Ends(125, "run", "--json", "app:v1", "true")
	c.Ends(2, "start", "--json", "-a", "one")
}

// A container whose image's name means another image by now is not said to be of that one.
func TestPsOfAMovedName(t *testing.T) {
	c := store(t)
	defer c.Do("rm", "-f", "one", "two")
	c.Do("create", "--name", "one", "app:v1", "true")
	c.Do("run", "--name", "two", "app:v1", "sh", "-c", "echo hi > /hi")
	image := func() string {
		t.Helper()
		for line := range strings.Lines(c.Do("ps", "-a")) {
			if f := strings.Fields(line); f[0] == "one" {
				return f[2]
			}
		}
		return ""
	}
	if got := image(); got != "app:v1" {
		t.Errorf("the image is %q", got)
	}
	id := strings.TrimSpace(c.Do("image", "inspect", "app:v1", "--json"))
	c.Do("commit", "two", "app:v1")
	if got := image(); got == "app:v1" || !strings.Contains(id, got) {
		t.Errorf("after a commit to its name the image is %q", got)
	}
}

// What a record of JSON would make something else of is refused, and not run as that.
func TestArgumentsThatAreNoText(t *testing.T) {
	c := store(t)
	odd := harness.Dir(t) + "/src\xff"
	if err := os.Mkdir(odd, 0o755); err != nil {
		t.Fatal(err)
	}
	c.Do("run", "-d", "--name", "box", "app:v1", "sh", "-c", "sleep 1000")
	for _, args := range [][]string{
		{"run", "--rm", "app:v1", "ls", "a\xffb"},
		{"run", "--rm", "-e", "V=\xff", "app:v1", "true"},
		{"run", "--rm", "-v", odd + ":/m", "app:v1", "true"},
		{"create", "--tmpfs", "/m\xff", "app:v1", "true"},
		{"create", "-w", "/m\xff", "app:v1", "true"},
		{"create", "-l", "k=\xff", "app:v1", "true"},
		{"exec", "box", "ls", "a\xffb"},
		{"exec", "-e", "V=\xff", "box", "true"},
	} {
		c.Fails(`\xff`, args...)
		c.Fails("no UTF-8", args...)
	}
	c.Want("\u00e4\n", "exec", "box", "sh", "-c", "echo $0", "\u00e4")
	c.Do("rm", "-f", "box")
	c.Want("", "ps", "-aq")
}
