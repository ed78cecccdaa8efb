package note

import (
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// With another runtime the storage is the same. The failed exec leaves an orphan in the container; as
// long as nobody waited for it the container could not end, and stop never returned.
func TestAnotherRuntime(t *testing.T) {
	s := newShop(t)
	if _, err := exec.LookPath("crun"); err != nil {
		t.Skip(err)
	}
	// crun does not start where both generations of cgroups are mounted. The tests have a mount namespace of their own.
	_ = unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH)
	s.Do("run", "-d", "--runtime", "crun", "--name", "one", "-v", "todo:/data", "app:v1", "serve")
	s.Do("exec", "one", "/todo", "add", "milk")
	s.Ends(127, "exec", "one", "nosuch") // in the words of crun, and in ours
	s.Do("exec", "one", "/todo", "write", "/note", "from exec")
	s.Do("stop", "-t", "5", "one")
	if out := s.Do("ps", "-a"); !strings.Contains(out, "exited (0)") {
		t.Errorf("ps -a: %s", out)
	}
	s.holds(s.root+"/containers/one/upper/note", "from exec")
	s.Want("welcome\nmilk\n", "run", "--rm", "-v", "todo:/data", "app:v1")
}
