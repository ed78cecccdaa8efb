package container

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// givenUp runs a command and interrupts it until it ends, from when it has said something on, or at once if that is "".
func givenUp(t *testing.T, cmd *exec.Cmd, something string) (said string) {
	t.Helper()
	log, err := os.Create(harness.Dir(t) + "/said")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for until := time.Now().Add(time.Minute); ; {
		select {
		case err := <-ended:
			if err == nil {
				t.Error("it was done, although nobody answered")
			}
			b, _ := os.ReadFile(log.Name())
			return string(b)
		case <-time.After(100 * time.Millisecond):
		}
		b, err := os.ReadFile(log.Name())
		if said = string(b); err != nil || time.Now().After(until) {
			t.Errorf("it does not end: %v", err)
			_ = cmd.Process.Kill()
		} else if strings.Contains(said, something) {
			_ = cmd.Process.Signal(unix.SIGINT)
		}
	}
}

// Who waits for a source that does not answer is told so, and need not wait.
func TestSourceHangsAtStart(t *testing.T) {
	c := store(t)
	far := harness.NewLayers(t, "f it x").Plyfs(t)
	back := func() { _ = unix.Kill(far.PID(), unix.SIGCONT) }
	t.Cleanup(back)
	stop := func() {
		if err := unix.Kill(far.PID(), unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	run := []string{"run", "--rm", "--name", "box", "-v", far.Dir + ":/n", "app:v1", "true"}

	// The command itself looks at it first.
	stop()
	givenUp(t, c.Command(run...), "")
	back()
	await(t, "nothing left", func() bool { return c.Do("ps", "-aq") == "" })

	// What it looks at is known to the kernel, and the container's daemon waits. It goes on when it can.
	if _, err := os.Stat(far.Dir); err != nil {
		t.Fatal(err)
	}
	stop()
	said := givenUp(t, c.Command(run...), "does not answer")
	if !strings.Contains(said, "bind at /n: the source "+far.Dir+" does not answer; waiting for it\n") || !strings.Contains(said, "left to itself") {
		t.Errorf("run: %q", said)
	}
	c.Want("box\n", "ps", "-q")
	back()
	await(t, "its end", func() bool { return c.Do("ps", "-aq") == "" })

	stop()
	at := harness.Dir(t)
	said = givenUp(t, c.Command("mount", "--lower", harness.Dir(t), "--bind", far.Dir+":/n", at), "does not answer")
	if !strings.HasSuffix(said, "given up before the mount was ready\n") {
		t.Errorf("mount: %q", said)
	}
	back()
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || bytes.Contains(b, []byte(at)) {
		t.Errorf("mounted all the same, %v", err)
	}
}
