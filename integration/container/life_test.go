package container

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// What a container has of the kernel's, and of the host's, leaves nothing in its writable layer,
// with either runtime; and so a commit has only what the container made.
func TestNoMountPointsInTheWritableLayer(t *testing.T) {
	c := store(t)
	_ = unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH) // crun does not start with both generations of cgroups
	for _, runtime := range []string{"", "crun"} {
		if runtime != "" {
			harness.NeedTool(t, runtime)
		}
		for _, flags := range [][]string{nil, {"--read-only"}} {
			name := "box" + runtime + fmt.Sprint(len(flags))
			args := append([]string{"run", "--name", name, "--runtime", runtime, "-v", "vol:/srv/vol", "--tmpfs", "/cache"}, flags...)
			c.Do(append(args, "app:v1", "sh", "-c", "test -d /proc/1 && test -c /dev/null && test -d /sys/class && test -s /etc/hosts && test -e /etc/resolv.conf && echo x > /tmp/x && echo x > /cache/x")...)
			if left, err := os.ReadDir(c.Root + "/containers/" + name + "/upper"); err != nil || len(left) > 0 {
				t.Errorf("%s: the writable layer has %v, %v", name, left, err)
			}
			c.Do("rm", name)
		}
	}
	// What the image has of them is its own, and stays.
	c.Do("run", "--name", "one", "app:v1", "sh", "-c", "mkdir /tmp/x")
	c.Do("run", "--name", "two", "--tmpfs", "/other", "app:v1", "true")
	view := harness.Dir(t)
	c.Do("mount", "--container", "one", view)
	if err := os.Mkdir(view+"/tmp", 0o777); err != nil {
		t.Error(err)
	}
	c.Do("umount", view)
	c.Do("commit", "one", "app:v2")
	c.Do("run", "--name", "three", "app:v2", "touch", "/tmp/kept")
	if _, err := os.Stat(c.Root + "/containers/three/upper/tmp/kept"); err != nil {
		t.Error(err)
	}
}

// A command that cannot end, because a process whose parent is outside of the container is not waited for,
// does not hang stop, whatever runs it; and when the process is gone, so is the container.
func TestStopOfWhatDoesNotEnd(t *testing.T) {
	c := store(t)
	_ = unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH)
	for _, name := range []string{"", "crun"} {
		if name != "" {
			harness.NeedTool(t, name)
		}
		c.Do("run", "-d", "--name", "one", "--runtime", name, "app:v1", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
		orphan := inside(t, c, "one")
		c.Fails("has not ended", "stop", "-t", "0", "one")
		if out := c.Do("ps"); !strings.Contains(out, "one") {
			t.Errorf("ps: %s", out)
		}
		_ = orphan.Wait()
		await(t, "the container's end", func() bool { return strings.Contains(c.Do("ps", "-a"), "exited (137)") })
		c.Do("rm", "one")
	}
}

// inside starts a process in the PID namespace of a container, as a child of ours.
func inside(t *testing.T, c *harness.CLI, name string) *exec.Cmd {
	t.Helper()
	var pid int
	out := c.Do("ps", "--json")
	_, rest, _ := strings.Cut(out, `"pid": `)
	if _, err := fmt.Sscan(rest, &pid); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	cmd := exec.Command("sleep", "1000")
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends, with its namespace
		fd, err := unix.PidfdOpen(pid, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWPID)
			unix.Close(fd)
		}
		if err == nil {
			err = cmd.Start()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// completing calls f with the name of a container whose command has ended and whose layer is being completed.
func completing(t *testing.T, c *harness.CLI, f func(name string)) {
	t.Helper()
	c.Do("run", "--name", "big", "app:v1", "dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=300")
	c.Do("commit", "big", "app:big")
	c.Do("rm", "big")
	for i := range 5 {
		name := fmt.Sprint("box", i)
		c.Do("run", "-d", "--name", name, "app:big", "sh", "-c", "echo run >> /runs; echo x | dd of=/big conv=notrunc bs=1 seek=5000")
		if reaches(t, c, name, "stopping", "exited") == "stopping" {
			f(name)
			return
		}
	}
	t.Skip("it is completed too quickly here")
}

// reaches waits for one of the states, and returns it.
func reaches(t *testing.T, c *harness.CLI, name string, states ...string) (reached string) {
	t.Helper()
	await(t, "its end", func() bool {
		b, _ := os.ReadFile(c.Root + "/containers/" + name + "/state.json")
		for _, s := range states {
			if strings.Contains(string(b), `"`+s+`"`) {
				reached = s
			}
		}
		return reached != ""
	})
	return reached
}

// Who starts a container that is being completed gets another run of its command.
func TestStartWhileCompleted(t *testing.T) {
	c := store(t)
	completing(t, c, func(name string) {
		c.Do("start", name)
		reaches(t, c, name, "exited")
		if b, err := os.ReadFile(c.Root + "/containers/" + name + "/upper/runs"); err != nil || string(b) != "run\nrun\n" {
			t.Errorf("runs: %q, %v", b, err)
		}
	})
}

// Who removes it does not wait for what nobody needs.
func TestRemovedWhileCompleted(t *testing.T) {
	c := store(t)
	completing(t, c, func(name string) {
		f, err := os.Open(c.Root + "/containers/" + name + "/upper/big")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var st unix.Stat_t
		await(t, "the first of it", func() bool { return unix.Fstat(int(f.Fd()), &st) == nil && st.Blocks*512 > 10<<20 })
		// The daemon stands still until it can hear of the removal, however busy the machine is.
		b, err := os.ReadFile(c.Root + "/containers/" + name + "/state.json")
		_, rest, _ := strings.Cut(string(b), `"daemon": `)
		var daemon int
		if _, scanned := fmt.Sscan(rest, &daemon); err != nil || scanned != nil || daemon <= 1 {
			t.Fatalf("%v, %s", err, b)
		}
		stopped := unix.Kill(daemon, unix.SIGSTOP)
		rm := c.Command("rm", "-f", name)
		if err := errors.Join(stopped, rm.Start()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		if err := errors.Join(unix.Kill(daemon, unix.SIGCONT), rm.Wait()); err != nil {
			t.Error(err)
		}
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink != 0 || st.Blocks*512 >= st.Size {
			t.Errorf("%d links, %d of %d bytes in the upper, %v", st.Nlink, st.Blocks*512, st.Size, err)
		}
	})
}

// An exec beside a stop ends with its own code, is killed with the container, or says that the container does not run:
// neither that a daemon was killed nor that memory is short.
func TestExecBesideStop(t *testing.T) {
	both(t, func(t *testing.T, c *harness.CLI) {
		c.Do("create", "--name", "box", "app:v1", "sleep", "1000")
		for range 8 {
			c.Do("start", "box")
			var all sync.WaitGroup
			for _, command := range [][]string{{"true"}, {"sleep", "1000"}, {"true"}, {"sleep", "1000"}} {
				all.Add(1)
				go func() {
					defer all.Done()
					cmd := c.Command(append([]string{"exec", "box"}, command...)...)
					out, err := cmd.CombinedOutput()
					over := strings.Contains(string(out), "is not running") || strings.Contains(string(out), "has just ended")
					if code := harness.ExitCode(err); !(code == 0 && command[0] == "true" || code == 137 && len(out) == 0 || code == 125 && over) {
						t.Errorf("%q: code %d, %q", command, code, out)
					}
				}()
			}
			c.Do("stop", "-t", "0", "box")
			all.Wait()
		}
		c.Do("rm", "box")
	})
}
