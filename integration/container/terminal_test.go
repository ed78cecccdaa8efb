package container

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// runtimes are what may run a container's command: plyfs itself, and crun if it is here.
func runtimes(t *testing.T) []string {
	t.Helper()
	_ = unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH) // crun does not start with both generations of cgroups
	return []string{"", "crun"}
}

// -it: the command has a terminal, of the size of ours; what is typed reaches it raw, ^C as its signal; and ours is as
// before when it has ended.
func TestTerminal(t *testing.T) {
	both(t, func(t *testing.T, c *harness.CLI) {
		for _, runtime := range runtimes(t) {
			if runtime != "" {
				harness.NeedTool(t, runtime)
			}
			x := harness.InTerminal(t, c.Command("run", "--rm", "-it", "--name", "box", "--runtime", runtime, "app:v1", "sh", "-c", "stty size; sh"), 30, 101)
			x.Await("30 101\r\n") // from the first moment on
			x.Type("tty && echo $TERM $((6*7))\n")
			x.Await("\r\nxterm 42\r\n")
			if x.Cooked() {
				t.Error("our terminal still edits lines")
			}
			x.Resize(20, 64)
			// The size takes another way than what is typed: which of them comes first is nobody's promise.
			x.Type("until test \"$(stty size)\" = '20 64'; do sleep 0.05; done; echo resi''zed\n")
			x.Await("resized\r\n")
			// ^C is the foreground command's, not ours, nor the shell's.
			x.Type("trap 'echo caught' INT; sleep 1000\n")
			await(t, "the sleep", func() bool { return len(processes("1000", "sleep")) > 0 })
			x.Type("\x03")
			x.Await("caught\r\n")
			x.Type("exit 9\n")
			x.Ends(9)
			if !x.Cooked() {
				t.Error("our terminal was left raw")
			}
			// ^D ends a shell.
			x = harness.InTerminal(t, c.Command("run", "--rm", "-it", "--runtime", runtime, "app:v1", "sh", "-c", "echo ready; cat; echo end"), 24, 80)
			x.Await("ready\r\n")
			x.Type("line\n\x04")
			x.Await("line\r\nline\r\nend\r\n")
			x.Ends(0)
		}
	})
}

// A terminal of its own for exec, in a container that has none, and for a container that is started again.
func TestTerminalOfExecAndStart(t *testing.T) {
	c := store(t)
	c.Do("run", "-d", "--name", "box", "app:v1", "sh", "-c", "trap exit TERM; while :; do sleep 0.1; done")
	x := harness.InTerminal(t, c.Command("exec", "-it", "box", "sh", "-c", "stty size; sh"), 33, 77)
	x.Await("33 77\r\n")
	x.Type("tty; exit 5\n")
	x.Await("/dev/")
	x.Ends(5)
	c.Do("rm", "-f", "box")

	c.Do("create", "-it", "--name", "box", "app:v1", "sh")
	for range 2 {
		x = harness.InTerminal(t, c.Command("start", "-a", "-i", "box"), 24, 80)
		x.Type("echo $((40+2)); exit\n")
		x.Await("42\r\n")
		x.Ends(0)
	}
	// -t alone: a terminal to print on.
	x = harness.InTerminal(t, c.Command("run", "--rm", "-t", "app:v1", "sh", "-c", "test -t 0 && test -t 1 && stty size"), 12, 34)
	x.Await("12 34\r") // without -i ours stays as it is, and ends a line once more
	x.Ends(0)
	// Without -t there is none, and output and errors stay apart.
	cmd := c.Command("run", "--rm", "-i", "app:v1", "sh", "-c", "test -t 0 || cat; echo err >&2")
	cmd.Stdin = strings.NewReader("from stdin\n")
	if out, err := cmd.Output(); err != nil || string(out) != "from stdin\n" {
		t.Errorf("%q, %v", out, err)
	}
	// -t with an input that is no terminal: whoever edits lines would never see its end. -t alone reads nothing.
	for _, args := range [][]string{{"run", "--rm", "-it", "app:v1", "sh"}, {"start", "-i", "box"}, {"exec", "-it", "box", "sh"}} {
		cmd = c.Command(args...)
		cmd.Stdin = strings.NewReader("exit 3\n")
		if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 125 || !strings.Contains(string(out), "standard input is no terminal") {
			t.Errorf("%q: %q, %v", args, out, err)
		}
	}
	c.Want("box\n", "ps", "-aq")
	c.Want("/dev/pts/0\r\n", "run", "--rm", "-t", "app:v1", "tty")
}

// Who sat in front of a terminal is gone, killed or with the terminal itself: the command goes on, and does not hang
// in what it prints.
func TestTerminalLeft(t *testing.T) {
	const prints = "trap '' HUP; echo ready; read x; i=0; while [ $i -lt 9999 ]; do echo line $i; i=$((i+1)); done; echo end > /end; sleep 1000"
	for _, runtime := range runtimes(t) {
		if runtime != "" {
			harness.NeedTool(t, runtime)
		}
		c := store(t)
		for name, leave := range map[string]func(x *harness.Terminal, pid int){
			"killed": func(x *harness.Terminal, pid int) { _ = unix.Kill(pid, unix.SIGKILL); x.Gone() },
			"hangup": func(x *harness.Terminal, _ int) { x.Hangup(); x.Gone() },
		} {
			for _, command := range []string{"run", "exec"} {
				box := name + command
				args := []string{"run", "-it", "--runtime", runtime, "--name", box, "app:v1", "sh", "-c", prints}
				if command == "exec" {
					c.Do("run", "-d", "--runtime", runtime, "--name", box, "app:v1", "sleep", "1000")
					args = []string{"exec", "-it", box, "sh", "-c", prints}
				}
				cmd := c.Command(args...)
				x := harness.InTerminal(t, cmd, 24, 80)
				x.Await("ready\r\n")
				x.Type("\n")
				x.Await("line 9\r\n")
				leave(x, cmd.Process.Pid)
				await(t, "the end of what "+box+" prints", func() bool {
					return strings.Contains(c.Do("exec", box, "sh", "-c", "test -e /end && echo there; true"), "there")
				})
				c.Do("rm", "-f", box)
			}
		}
	}
}

// Who was stopped and goes on has a terminal as the shell left it, and maybe of another size.
func TestTerminalStopped(t *testing.T) {
	c := store(t)
	cmd := c.Command("run", "--rm", "-it", "app:v1", "sh", "-c", "echo ready; sh")
	x := harness.InTerminal(t, cmd, 24, 80)
	x.Await("ready\r\n")
	await(t, "a raw terminal", func() bool { return !x.Cooked() })
	_ = cmd.Process.Signal(unix.SIGSTOP)
	x.Cook()
	_ = cmd.Process.Signal(unix.SIGCONT)
	await(t, "a raw terminal", func() bool { return !x.Cooked() })
	x.Type("exit 3\n")
	x.Ends(3)
	if !x.Cooked() {
		t.Error("our terminal was left raw")
	}
}

// Who is killed in front of a container leaves it running; one with --rm goes when its command ends.
func TestClientKilled(t *testing.T) {
	c := store(t)
	for _, runtime := range runtimes(t) {
		if runtime != "" {
			harness.NeedTool(t, runtime)
		}
		cmd := c.Begin("run", "--rm", "--name", "box", "--runtime", runtime, "app:v1", "sh", "-c", "trap exit TERM; echo ready; while :; do sleep 0.05; done")
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		c.Want("box\n", "ps", "-q")
		c.Want("in\n", "exec", "box", "sh", "-c", "echo in")
		c.Do("stop", "box")
		await(t, "the removal", func() bool { return c.Do("ps", "-a", "-q") == "" })
	}
	// Its daemon killed, the command goes with it, and nobody is there to remove the container.
	c.Do("run", "-d", "--rm", "--name", "box", "-v", "/anonymous", "app:v1", "sh", "-c", "echo x > /kept; sleep 1000")
	for _, pid := range processes("keep-container", c.Root) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	await(t, "its end", func() bool { return strings.Contains(c.Do("ps", "-a"), "killed") })
	c.Do("start", "box")
	c.Do("rm", "-f", "-v", "box")
	if left, _ := os.ReadDir(c.Root + "/containers"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	c.Want("", "volume", "ls", "-q")
}
