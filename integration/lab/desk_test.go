// Package lab does the exercises of plyfs lab, through real mounts.
package lab

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/cmd/plyfs/lab"
	"github.com/plyfs/plyfs/integration/harness"
)

// desk is where the exercises of a test are set up. At its end nothing may be left there.
func desk(t *testing.T) string {
	t.Helper()
	dir := harness.Dir(t)
	t.Cleanup(func() { leavesNothing(t, dir) })
	return dir
}

// leavesNothing looks for what exercises in dir have left: files, mounts, processes.
func leavesNothing(t *testing.T, dir string) {
	t.Helper()
	var left []string
	for range 500 { // a daemon that was unmounted lazily ends in a moment
		if left = remains(t, dir); len(left) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("left: %v", left)
}

func remains(t *testing.T, dir string) []string {
	t.Helper()
	left, _ := filepath.Glob(dir + "/plyfs-*-*")
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, dir+"/") {
			left = append(left, line)
		}
	}
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environs {
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte("PLYFS_ROOT="+dir+"/plyfs-")) {
			comm, _ := os.ReadFile(filepath.Dir(path) + "/comm")
			left = append(left, filepath.Dir(path)+" "+string(comm))
		}
	}
	return left
}

// command is plyfs lab with exercises in dir.
func command(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command(harness.Binary(), append([]string{"lab"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	return cmd
}

// worker is a script in place of the user's shell.
func worker(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(harness.Dir(t), "worker")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// checked reads what the check found.
func checked(t *testing.T, out []byte) (r lab.Result) {
	t.Helper()
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return r
}

// look finds a program.
func look(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip(err)
	}
	return path
}
