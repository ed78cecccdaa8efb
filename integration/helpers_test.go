package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

func itoa(n int) string { return strconv.Itoa(n) }

func isErrno(err error, want unix.Errno) bool { return errors.Is(err, want) }

// run runs a program; its error has what the program said.
func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// foreground starts plyfs, with -f, and returns when dir is mounted. The process is killed with the
// test at the latest.
func foreground(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(harness.Binary(), append(args, "-f")...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	waitFor(t, "the mount of "+dir, func() bool { return mounted(t, dir) })
	return cmd
}

// patch writes text at off.
func patch(t *testing.T, path string, off int64, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), off); err != nil {
		t.Fatal(err)
	}
}

// fds lists the descriptors of a process, as paths below its directory in /proc.
func fds(t *testing.T, pid int) []string {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, "fd/"+e.Name())
	}
	return out
}

// asUser runs plyfs as an ordinary user.
func asUser(t *testing.T, l *harness.Layers, args ...string) (string, error) {
	t.Helper()
	out, err := harness.AsUser(l.Root, harness.Binary(), args...).CombinedOutput()
	return string(out), err
}

// script runs shell commands, and fails the test when one of them fails.
func script(t *testing.T, cmd *exec.Cmd, lines string) string {
	t.Helper()
	cmd.Args = append(cmd.Args, "-ec", lines)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, out, lines)
	}
	return string(out)
}
