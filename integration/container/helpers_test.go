package container

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/plyfs/plyfs/integration/harness"
)

// await waits until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for until := time.Now().Add(time.Minute); !so(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// processes returns those that run a subcommand of plyfs and have text in their arguments.
func processes(subcommand, text string) (pids []int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		b, err := os.ReadFile(path)
		args := bytes.Split(b, []byte{0})
		if err != nil || len(args) < 2 || string(args[1]) != subcommand || !bytes.Contains(b, []byte(text)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && harness.Alive(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}
