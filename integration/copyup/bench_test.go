package copyup

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// loops returns the files in a directory, or below it, that are loop devices.
func loops(dir string) []string {
	var out []string
	found, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, path := range found {
		if b, err := os.ReadFile(path); err == nil && strings.HasPrefix(string(b), dir+"/") {
			out = append(out, strings.TrimSpace(string(b)))
		}
	}
	return out
}

// TestBenchLeavesNothing interrupts plyfs bench in several ways: loop images, mounts and processes go, and files too
// unless nobody is left to remove them; then the next run does.
func TestBenchLeavesNothing(t *testing.T) {
	harness.NeedRoot(t)
	run := func(dir string, args ...string) *exec.Cmd {
		cmd := exec.Command(harness.Binary(), append([]string{"bench", "copyup", "--dir", dir}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		return cmd
	}
	for _, c := range []struct {
		name string
		end  func(pid int) error
		left int // directories
	}{
		{"^C", func(pid int) error { return unix.Kill(-pid, unix.SIGINT) }, 0}, // as a terminal does, to all of them
		{"SIGINT", func(pid int) error { return unix.Kill(pid, unix.SIGINT) }, 0},
		{"SIGTERM", func(pid int) error { return unix.Kill(pid, unix.SIGTERM) }, 0},
		{"SIGKILL", func(pid int) error { return unix.Kill(pid, unix.SIGKILL) }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := harness.Dir(t)
			cmd := run(dir, "--quick", "--filesystem", "ext4", "--peers", "^plyfs$")
			must(t, cmd.Start())
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			defer func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }()
			eventually(t, "it measures", func() bool {
				scratch, _ := filepath.Glob(dir + "/plyfs-bench-*")
				return len(scratch) == 1 && len(harness.Processes(scratch[0]+"/ext4/turn/mnt")) > 0
			})
			if len(loops(dir)) != 1 {
				t.Errorf("loop devices: %q", loops(dir))
			}
			must(t, c.end(cmd.Process.Pid))
			if err := <-ended; err == nil {
				t.Error("it ended with success")
			}
			eventually(t, "the loop device goes", func() bool { return len(loops(dir)) == 0 })
			eventually(t, "the processes go", func() bool { return len(harness.Processes(dir)) == 0 })
			if left, err := os.ReadDir(dir); err != nil || len(left) != c.left {
				t.Errorf("left behind: %v, %v", left, err)
			}
			out, err := run(dir, "--quick", "--cases", "^chmod: 4 KiB", "--peers", "^plain$").CombinedOutput()
			if err != nil {
				t.Errorf("the next run: %v\n%s", err, out)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind by the next run: %v, %v", left, err)
			}
		})
	}
	// What is complete is printed, the line on standard error says the rest, and an older result is not touched.
	t.Run("results", func(t *testing.T) {
		dir := harness.Dir(t)
		old := filepath.Join(dir, "old.json")
		must(t, os.WriteFile(old, []byte("old"), 0o600))
		args := []string{"--json", old, "--html", filepath.Join(dir, "new.html"), "--pattern", "chmod", "--peers", "^plyfs$|^plain$"}
		cmd := run(dir, append(args, "--size", "4K,512M", "--rounds", "4")...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		must(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		defer func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }()
		eventually(t, "it has measured the first size", func() bool {
			second, _ := filepath.Glob(dir + "/plyfs-bench-*/lower-full-536870912-1/d000")
			return len(second) > 0
		})
		must(t, unix.Kill(-cmd.Process.Pid, unix.SIGINT))
		if err := <-ended; harness.ExitCode(err) != 1 || !strings.Contains(errs.String(), "plyfs: bench: interrupted: 1 of 2 cases") || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("%v\n%s", err, errs.String())
		}
		if !strings.Contains(out.String(), "time per file, median") || strings.Contains(out.String(), "failed") {
			t.Errorf("it says:\n%s", out.String())
		}
		if b, err := os.ReadFile(old); err != nil || string(b) != "old" {
			t.Errorf("the older result: %q, %v", b, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		said, err := run(dir, append(args, "--size", "4K", "--quick")...).CombinedOutput()
		if b, e := os.ReadFile(old); err != nil || e != nil || !bytes.Contains(b, []byte(`"latency_ns"`)) {
			t.Errorf("a whole run: %v, %v\n%s\n%s", err, e, said, b)
		}
	})
	t.Run("failing", func(t *testing.T) {
		dir := harness.Dir(t)
		cmd := run(dir, "--filesystem", "ext4")
		cmd.Env = append(os.Environ(), "PATH=/nonexistent") // no mkfs
		if out, err := cmd.CombinedOutput(); harness.ExitCode(err) != 1 || !strings.Contains(string(out), "mkfs.ext4") {
			t.Errorf("%v\n%s", err, out)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 || len(loops(dir)) > 0 {
			t.Errorf("left behind: %v, %v, %v", left, err, loops(dir))
		}
	})
}
