package container

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// The exit code is the command's, 128 and the signal's number if one ended it, or says what plyfs could not do; and the
// command gets the signals.
func TestExitCodesAndSignals(t *testing.T) {
	both(t, func(t *testing.T, c *harness.CLI) {
		c.Ends(0, "run", "--rm", "app:v1", "true")
		c.Ends(42, "run", "--rm", "app:v1", "sh", "-c", "exit 42")
		c.Ends(125, "run", "--rm", "nosuch:v1", "true")
		c.Ends(126, "run", "--rm", "app:v1", "/data/list")
		c.Ends(127, "run", "--rm", "app:v1", "nosuch")
		const waits = "for s in 1 2 10 14 15 18 28 37; do trap \"exit $s\" $s; done; echo ready; while :; do sleep 0.05; done"
		for sig, want := range map[os.Signal]int{unix.SIGTERM: 15, unix.SIGINT: 2, unix.SIGHUP: 1, unix.SIGUSR1: 10, unix.SIGALRM: 14, unix.SIGCONT: 18,
			unix.SIGWINCH: 28, unix.Signal(37): 37} {
			cmd := c.Begin("run", "--rm", "app:v1", "sh", "-c", waits)
			if err := cmd.Process.Signal(sig); err != nil {
				t.Error(err)
			}
			if got := harness.ExitCode(cmd.Wait()); got != want {
				t.Errorf("%v: exit code %d, want %d", sig, got, want)
			}
		}
		c.Want("", "ps", "-a", "-q")
		// One that does not listen to TERM is killed when the time is up; what it wrote is there.
		cmd := c.Begin("run", "--name", "deaf", "app:v1", "sh", "-c", "trap '' TERM; echo x > /x; echo ready; while :; do sleep 0.05; done")
		c.Ends(128+9, "exec", "deaf", "sh", "-c", "kill -9 $$")
		c.Ends(128+15, "exec", "deaf", "sh", "-c", "kill $$; sleep 5")
		c.Ends(125, "exec", "-w", "/nowhere", "deaf", "true")
		c.Ends(125, "exec", "nosuch", "true")
		c.Ends(1, "exec", "deaf", "stat", "/nowhere")
		c.Want("deaf\n", "stop", "-t", "1", "deaf")
		if got := harness.ExitCode(cmd.Wait()); got != 128+9 {
			t.Errorf("exit code of the killed one: %d", got)
		}
		if out := c.Do("ps", "-a"); !strings.Contains(out, "exited (137)") {
			t.Errorf("ps -a: %s", out)
		}
		c.Ends(125, "exec", "deaf", "true")
		c.Do("commit", "deaf", "after:v1")
		c.Want("x\n", "run", "--rm", "after:v1", "cat", "/x")
		c.Do("rm", "deaf")
		// The signal that asks is the user's choice.
		c.Do("run", "-d", "--name", "usr", "--stop-signal", "USR1", "app:v1", "sh", "-c", waits)
		c.Do("exec", "usr", "true")
		await(t, "its traps", func() bool { return c.Do("logs", "usr") == "ready\n" })
		c.Do("stop", "-t", "20", "usr")
		if out := c.Do("ps", "-a"); !strings.Contains(out, "exited (10)") {
			t.Errorf("ps -a: %s", out)
		}
		c.Do("rm", "usr")
		// systemd asks for one of real time.
		c.Do("run", "-d", "--name", "rt", "--stop-signal", "RTMIN+3", "app:v1", "sh", "-c", waits)
		await(t, "its traps", func() bool { return c.Do("logs", "rt") == "ready\n" })
		c.Do("stop", "-t", "20", "rt")
		if out := c.Do("ps", "-a"); !strings.Contains(out, "exited (37)") {
			t.Errorf("ps -a: %s", out)
		}
		c.Do("rm", "rt")
	})
}

// A runtime's complaint is told from the command's being missing or not to be executed.
func TestExitCodesWithRuntime(t *testing.T) {
	c := store(t)
	for _, runtime := range runtimes(t) {
		if runtime != "" {
			harness.NeedTool(t, runtime)
		}
		run := []string{"run", "--rm", "--runtime", runtime}
		c.Ends(7, append(run, "app:v1", "sh", "-c", "exit 7")...)
		c.Ends(125, append(run, "--read-only", "-w", "/data/list", "app:v1", "true")...)
		for _, cmd := range []string{"/data", "/data/list"} {
			c.Ends(126, append(run, "app:v1", cmd)...)
		}
		for _, cmd := range []string{"nosuch", "/no/such"} {
			c.Ends(127, append(run, "app:v1", cmd)...)
		}
	}
}

// A working directory that is missing is made also for a container whose root is read-only, as by Docker: before it becomes
// so, in the writable layer or what is mounted there, as root and with what is missing above it.
func TestWorkingDirectoryOfReadOnly(t *testing.T) {
	both(t, func(t *testing.T, c *harness.CLI) {
		c.Do("image", "load", layout(t, imagetest.Tree("d data\nf data/list welcome\nl link /else\nd else")))
		for _, runtime := range runtimes(t) {
			run := func(want string, args ...string) {
				t.Helper()
				c.Want(want, append([]string{"run", "--runtime", runtime, "--read-only", "--name", "ro"}, args...)...)
			}
			const script = "pwd; stat -c '%a %u %g' . ..; touch x 2>/dev/null && echo rw || :"
			run("/srv/app\n755 0 0\n755 0 0\n", "-w", "/srv/app", "-u", "5", "app:v1", "sh", "-c", script)
			c.Want("/srv/app\n755 0 0\n755 0 0\n", "start", "-a", "ro")
			if out := c.Do("diff", "ro"); !strings.Contains(out, "srv/app") {
				t.Errorf("diff: %s", out)
			}
			c.Do("rm", "ro")
			run("/else/new\n755 0 0\n755 0 0\n", "--rm", "-w", "/link/new", "app:v1", "sh", "-c", script)
			// Beneath a volume whose own directory is made for it, and in it.
			run("/a/c\n755 0 0\n755 0 0\n", "--rm", "-v", "/a/b", "-w", "/a/c", "app:v1", "sh", "-c", script)
			run("/a/b/c\n755 0 0\n755 0 0\nrw\n", "--rm", "-v", "/a/b", "-w", "/a/b/c", "app:v1", "sh", "-c", script)
			run("/tmp/t\nrw\n", "--rm", "-w", "/tmp/t", "app:v1", "sh", "-c", "pwd; touch x && echo rw")
			run("/dev/shm/t\nrw\n", "--rm", "-w", "/dev/shm/t", "app:v1", "sh", "-c", "pwd; touch x && echo rw")
			c.Ends(125, "run", "--runtime", runtime, "--read-only", "--rm", "-w", "/data/list/x", "app:v1", "true")
		}
	})
}

// What the flags of run are about, as the command sees it.
func TestFlagsOfRun(t *testing.T) {
	both(t, func(t *testing.T, c *harness.CLI) {
		c.Do("image", "load", layout(t, imagetest.Tree(`d etc
			f etc/passwd root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n
			f etc/group root:x:0:\napp:x:1001:\nextra:x:44:app\n`)))
		run := func(want string, args ...string) {
			t.Helper()
			cmd := c.Command(append([]string{"run", "--rm"}, args...)...)
			cmd.Env = append(cmd.Env, "FROM_HERE=host's")
			if out, err := cmd.CombinedOutput(); err != nil || string(out) != want {
				t.Errorf("plyfs run %q: %v, %q, want %q", args, err, out, want)
			}
		}
		const env = `echo "$A,$FROM_HERE,${NOT_HERE-unset},$HOME"`
		run("b c,host's,unset,/home/app\n", "-u", "app", "-e", "A=b c", "-e", "FROM_HERE", "-e", "NOT_HERE", "app:v1", "sh", "-c", env)
		run(",,unset,/mine\n", "-e", "HOME=/mine", "app:v1", "sh", "-c", env)
		run("1000 1001\n/made/here\n", "-u", "app", "-w", "/made/here", "app:v1", "sh", "-c", "stat -c '%u %g' /proc/1; pwd")
		run("1000 44\n", "-u", "app:extra", "app:v1", "stat", "-c", "%u %g", "/proc/1")
		c.Fails("no user \"nosuch\"", "run", "--rm", "-u", "nosuch", "app:v1", "true")
		c.Fails("want an absolute path", "run", "--rm", "-w", "here", "app:v1", "true")
		// Of a read-only container the mounts can be written to; the options of a tmpfs count.
		run("1777 0\n700 1000\nrw\n", "--read-only", "--tmpfs", "/plain", "--tmpfs", "/t:size=64k,mode=700,uid=1000", "-v", "vol:/vol", "app:v1", "sh", "-c",
			`! touch /new 2>/dev/null && stat -c '%a %u' /plain /t && touch /vol/x /plain/x && echo rw`)
		c.Ends(1, "run", "--rm", "--tmpfs", "/t:size=64k", "app:v1", "dd", "if=/dev/zero", "of=/t/x", "bs=1k", "count=100")
		c.Fails("is not a size", "run", "--rm", "--tmpfs", "/t:size=banana", "app:v1", "true")
		c.Ends(1, "run", "--rm", "--tmpfs", "/t:ro", "app:v1", "touch", "/t/x")
	})
}
