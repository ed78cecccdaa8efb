package harness

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// CLI runs plyfs on a store of its own, for one test.
type CLI struct {
	T    testing.TB
	Root string   // of the store; "" for the default
	As   *Account // nil for root
}

// Command returns plyfs with these arguments, not started.
func (c *CLI) Command(args ...string) *exec.Cmd {
	if c.As != nil {
		cmd := c.As.Command(binary, args...)
		if c.Root != "" {
			cmd.Env = append(cmd.Env, "PLYFS_ROOT="+c.Root)
		}
		return cmd
	}
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "PLYFS_ROOT="+c.Root)
	return cmd
}

// Begin starts plyfs and returns when its command has printed "ready".
func (c *CLI) Begin(args ...string) *exec.Cmd {
	c.T.Helper()
	cmd := c.Command(args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.T.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.T.Fatal(err)
	}
	if _, err := out.Read(make([]byte, len("ready\n"))); err != nil {
		c.T.Error(err)
	}
	return cmd
}

// Do runs plyfs, which must succeed, and returns what it printed.
func (c *CLI) Do(args ...string) string {
	c.T.Helper()
	out, err := c.Command(args...).CombinedOutput()
	if err != nil {
		c.T.Fatalf("plyfs %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Want runs plyfs, which must succeed and print just that.
func (c *CLI) Want(want string, args ...string) {
	c.T.Helper()
	if got := c.Do(args...); got != want {
		c.T.Errorf("plyfs %s: %q, want %q", strings.Join(args, " "), got, want)
	}
}

// Fails runs plyfs, which must fail and give the reason in one line.
func (c *CLI) Fails(reason string, args ...string) {
	c.T.Helper()
	out, err := c.Command(args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), reason) || strings.Count(string(out), "\n") != 1 {
		c.T.Errorf("plyfs %s: %v, want a failure with %q in one line:\n%s", strings.Join(args, " "), err, reason, out)
	}
}

// Ends runs plyfs, which must end with the given code.
func (c *CLI) Ends(code int, args ...string) {
	c.T.Helper()
	if out, err := c.Command(args...).CombinedOutput(); ExitCode(err) != code {
		c.T.Errorf("plyfs %s: %v, want exit code %d\n%s", strings.Join(args, " "), err, code, out)
	}
}
