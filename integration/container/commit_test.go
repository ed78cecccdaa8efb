package container

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// The image of a running container has one moment of it: of two files, written one after the
// other all the time, the first is at most one step ahead, though many megabytes are packed between them.
func TestCommitOfARunningContainer(t *testing.T) {
	c := store(t)
	c.Do("run", "-d", "--name", "one", "app:v1", "sh", "-c",
		"dd if=/dev/urandom of=/big bs=1M count=40 2>/dev/null; while :; do echo >> /a; echo >> /z; done")
	c.Do("exec", "one", "sh", "-c", "while ! test -s /z; do sleep 0.1; done; sleep 1000 >/dev/null 2>&1 &")
	for _, name := range []string{"app:v2", "app:v3"} {
		c.Do("commit", "one", name)
		out := c.Do("run", "--rm", name, "sh", "-c", "echo $(($(stat -c %s /a) - $(stat -c %s /z)))")
		if d := strings.TrimSpace(out); d != "0" && d != "1" {
			t.Errorf("%s has two moments, %s steps apart", name, d)
		}
	}
	// It goes on afterwards.
	c.Do("exec", "one", "sh", "-c", "a=$(stat -c %s /a); while test $(stat -c %s /a) = $a; do :; done")
	c.Do("rm", "-f", "one")
}

// A container that does not run is packed as well, and nothing of that stays.
func TestCommitOfAStoppedContainer(t *testing.T) {
	c := store(t)
	c.Ends(3, "run", "--name", "one", "app:v1", "sh", "-c", "echo x > /new; rm /data/list; mv /data /moved; exit 3")
	c.Do("commit", "one", "app:v2")
	if out := c.Do("ps", "-a"); !strings.Contains(out, "exited (3)") {
		t.Errorf("ps -a: %s", out)
	}
	c.Want("x\nbin\nmoved\nnew\n", "run", "--rm", "app:v2", "sh", "-c", "cat /new; ls / | while read n; do case $n in etc|dev|proc|sys|tmp) ;; *) echo $n;; esac; done")
	c.Want("one\n", "start", "one")
	c.Do("stop", "one")
	c.Fails("no container two", "commit", "two")
	c.Fails("Bad/Name", "commit", "one", "Bad/Name")
	view := harness.Dir(t)
	c.Do("mount", "--container", "one", view)
	c.Fails("plyfs umount "+view, "commit", "one")
	c.Do("umount", view)
}

// A commit that is killed, and one whose keeper is killed, leave the container as it was.
func TestCommitKilled(t *testing.T) {
	c := store(t)
	c.Do("run", "--name", "one", "app:v1", "sh", "-c", "dd if=/dev/urandom of=/big bs=1M count=30 2>/dev/null; echo x > /z")
	names := c.Do("image", "ls", "-q")
	staging := filepath.Join(c.Root, "staging")
	for _, victim := range []string{"commit", "keep-container", "pack-container"} {
		cmd := c.Command("commit", "one", "app:v2")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, "the commit", func() bool {
			found, _ := filepath.Glob(staging + "/layer-*/layer/tree/big")
			return len(found) > 0
		})
		if victim == "commit" {
			_ = cmd.Process.Kill()
		}
		for _, pid := range processes(victim, c.Root) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if err := cmd.Wait(); err == nil {
			t.Errorf("%s was killed, and the commit succeeded", victim)
		}
		await(t, "the keeper's end", func() bool { return len(processes("keep-container", c.Root)) == 0 })
		if got := c.Do("image", "ls", "-q"); got != names {
			t.Errorf("after %s was killed: images %q, want %q", victim, got, names)
		}
		if left, _ := os.ReadDir(staging); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	c.Do("commit", "one", "app:v2")
	c.Want("x\n", "run", "--rm", "app:v2", "cat", "/z")
	c.Do("start", "-a", "one")
}

// Who looks at a container that does not run, and has it shown for a moment, is in the way of no commit.
func TestCommitBesideLooks(t *testing.T) {
	c := store(t)
	c.Do("run", "--name", "one", "app:v1", "sh", "-c", "echo x > /note")
	defer c.Do("rm", "-f", "one")
	over := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if out, err := c.Command("diff", "one").CombinedOutput(); err != nil || string(out) != "A /note\n" {
				t.Errorf("diff: %v: %s", err, out)
			}
		}
	})
	for range 20 {
		if out, err := c.Command("commit", "one", "beside").CombinedOutput(); err != nil {
			t.Errorf("commit: %v: %s", err, out)
		}
	}
	close(over)
	looking.Wait()
	c.Want("x\n", "run", "--rm", "beside", "cat", "/note")
}
