// Package user tests what an ordinary user of the machine does, through fusermount3 and in user namespaces. Root starts
// it in a cell, where somebody else is that user; an ordinary user starts it as it is.
package user

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/integration/harness"
)

func TestMain(m *testing.M) { harness.MainAsUser(m) }

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

func mounted(t *testing.T, dir string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(b, []byte(" "+dir+" "))
}

// waitFor waits until ok, a minute at most.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for ever: %s", what)
		}
	}
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}
