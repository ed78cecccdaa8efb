package container

import (
	"os"
	"testing"

	"github.com/plyfs/plyfs/integration/harness"
)

// What is mounted below /dev, /sys and, where the image has none, /tmp is not hidden by what the
// container gets there of the kernel's; and what could not be seen is refused.
func TestMountsOverTheKernels(t *testing.T) {
	both(t, func(t *testing.T, c *harness.CLI) {
		dir := harness.Dir(t)
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/log", []byte("logged\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, runtime := range runtimes(t) {
			c.Want("logged\nyes\n", "run", "--rm", "--runtime", runtime, "-v", "vol:/dev/some/place", "-v", dir+"/log:/dev/log:ro", "-v", "other:/dev/some/place/in", "--tmpfs", "/dev/shm:mode=700",
				"-v", "third:/tmp/third", "app:v1", "sh", "-c", `set -e
				cat /dev/log
				echo hi > /dev/some/place/file; echo hi > /dev/some/place/in/file; echo hi > /tmp/third/file; echo hi > /tmp/mine; echo hi > /dev/shm/x
				test "$(stat -c %a /dev/shm)" = 700 && test -c /dev/null && ! test -w /dev/log/x && echo yes`)
			for _, v := range []string{"vol", "other", "third"} {
				if b, err := os.ReadFile(c.Root + "/volumes/" + v + "/data/file"); string(b) != "hi\n" {
					t.Errorf("%q: volume %s: %q, %v", runtime, v, b, err)
				}
				c.Do("volume", "rm", v)
			}
			c.Do("run", "--name", "one", "--runtime", runtime, "-v", "vol:/dev/x", "app:v1", "true")
			if left, err := os.ReadDir(c.Root + "/containers/one/upper"); err != nil || len(left) > 0 {
				t.Errorf("the writable layer has %v, %v", left, err)
			}
			c.Do("rm", "one")
			c.Do("volume", "rm", "vol")
		}
		c.Fails("/sys/nothing/there", "run", "--rm", "-v", "vol:/sys/nothing/there", "app:v1", "true")
		for _, target := range []string{"/proc", "/proc/x/y", "/dev", "/sys"} {
			c.Fails("is the container's own", "run", "--rm", "-v", "none:"+target, "app:v1", "true")
		}
	})
}
