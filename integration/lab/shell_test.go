package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/lab"
	"github.com/plyfs/plyfs/integration/harness"
)

// Who does nothing is told so, with hints.
func TestNothingDone(t *testing.T) {
	harness.NeedRoot(t)
	dir := desk(t)
	for _, e := range lab.List() {
		cmd := command(dir, e.Name)
		cmd.Env = append(cmd.Env, "SHELL="+look(t, "true"))
		x := harness.InTerminal(t, cmd, 24, 100)
		x.Await("q ends the exercise: ")
		x.Type("q\n")
		x.Ends(1)
		x.Await("goals not reached")
		if out := x.Printed(); strings.Count(out, "  done  ") != 1 || !strings.Contains(out, "NOT DONE") || !strings.Contains(out, "Hint: ") {
			t.Errorf("%s:\n%s", e.Name, out)
		}
	}
}

// The work is done in the user's shell.
func TestShell(t *testing.T) {
	for _, shell := range []string{"bash", "dash"} {
		cmd := command(desk(t), "whiteout")
		cmd.Env = append(cmd.Env, "SHELL="+look(t, shell), "HOME="+harness.Dir(t))
		x := harness.InTerminal(t, cmd, 24, 100)
		x.Await("lab whiteout")
		x.Type("\x03") // is the shell's
		x.Await("^C")
		x.Type("\n\nrm mnt/etc/hosts; cd mnt/etc; plyfs explain hosts; cd ../..; cat TASK\n") // the terminal may have forgotten the first
		x.Await("which hides the name")
		x.Await("mnt/new; rm mnt/new: ")
		x.Type("rm mnt/srv/app.conf; echo 1 > mnt/srv/app.conf; command -v plyfs; exit 3\n")
		x.Ends(0)
		x.Await("Question: echo > mnt/new; rm mnt/new: does that leave a mark in the upper?\r\n  No.")
		if out := x.Printed(); strings.Count(out, "  done  ") != 4 || !strings.Contains(out, "/.bin/plyfs") || strings.Count(out, "Try:") != 2 {
			t.Errorf("%s: %s", shell, out)
		}
	}
}

// With goals left one can go back, to the work as it is; or hang up.
func TestBackToTheShell(t *testing.T) {
	shell := worker(t, "test -e upper/etc/hosts && { rm mnt/srv/app.conf; echo 1 > mnt/srv/app.conf; }; rm -f mnt/etc/hosts\n")
	for _, hangUp := range []bool{false, true} {
		cmd := command(desk(t), "whiteout")
		cmd.Env = append(cmd.Env, "SHELL="+shell)
		x := harness.InTerminal(t, cmd, 24, 100)
		x.Await("q ends the exercise: ")
		if out := x.Printed(); strings.Count(out, "  done  ") != 3 || strings.Count(out, "NOT DONE") != 1 {
			t.Error(out)
		}
		if hangUp {
			_ = cmd.Process.Signal(unix.SIGHUP)
			x.Ends(1)
			continue
		}
		x.Type("\n")
		x.Ends(0)
		x.Await("What happened")
		if out := x.Printed(); strings.Count(out, "  done  ") != 7 {
			t.Error(out)
		}
	}
}

// The JSON of a shell's work is alone on standard output.
func TestShellJSON(t *testing.T) {
	dir := desk(t)
	into := filepath.Join(harness.Dir(t), "result")
	cmd := exec.Command("sh", "-c", fmt.Sprintf("exec %s lab --json opaque > %s", harness.Binary(), into))
	cmd.Env = append(os.Environ(), "TMPDIR="+dir,
		"SHELL="+worker(t, "rm -r mnt/etc && mkdir mnt/etc && echo new > mnt/etc/fresh\n"))
	x := harness.InTerminal(t, cmd, 24, 100)
	x.Ends(0)
	b, err := os.ReadFile(into)
	if err != nil {
		t.Fatal(err)
	}
	if r := checked(t, b); r.NotDone() > 0 || len(r.Goals) != 3 {
		t.Errorf("%s", b)
	}
	x.Await("Question: ") // the task
}

// A signal, or a terminal that is closed, leaves nothing.
func TestInterruptedShell(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGTERM} {
		cmd := command(desk(t), "range")
		cmd.Env = append(cmd.Env, "SHELL="+look(t, "dash"))
		x := harness.InTerminal(t, cmd, 24, 100)
		x.Await("lab range$ ")
		x.Type("printf X | dd of=mnt/disk.img bs=1 conv=notrunc; cd mnt; sleep 1234567 & echo do''ne\n")
		x.Await("done\r\n")
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		x.Ends(1)
		endSleepers()
	}
}

// Neither does an interrupt while the solution is shown, or the demo, or a reader who has seen enough.
func TestInterruptedSolution(t *testing.T) {
	for i, sig := range []unix.Signal{unix.SIGINT, unix.SIGHUP, unix.SIGTERM, unix.SIGQUIT, unix.SIGPIPE, unix.SIGHUP, unix.SIGPIPE} {
		cmd := command(desk(t), "--solve", "all")
		if i > 4 {
			cmd.Args = []string{cmd.Args[0], "demo"}
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		out.Close()
		if sig != unix.SIGPIPE { // that one comes by itself
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Wait(); harness.ExitCode(err) != 1 || !strings.Contains(stderr.String(), "interrupted") {
			t.Errorf("%v: %v, %s", sig, err, &stderr)
		}
	}
}

// Somebody's own directory, bound into the view, is nothing that goes with the exercise; nor is what a link names.
func TestBoundDirectoryStays(t *testing.T) {
	mine := harness.Dir(t)
	if err := os.WriteFile(mine+"/mine", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := command(desk(t), "hide")
	cmd.Env = append(cmd.Env, "SHELL="+worker(t, fmt.Sprintf(`
plyfs umount mnt
plyfs mount --lower image --bind %s:/data mnt
(cd mnt/data; exec sleep 1234567) &
ln -s %s link
chmod 0 image
`, mine, mine)))
	x := harness.InTerminal(t, cmd, 24, 100)
	x.Await("q ends the exercise: ")
	x.Type("\x04")
	x.Ends(1)
	if _, err := os.Stat(mine + "/mine"); err != nil {
		t.Error(err)
	}
	endSleepers()
}

// endSleepers ends the background jobs that were started in a shell, which are nobody else's to end.
func endSleepers() {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		if b, err := os.ReadFile(path); err == nil && string(b) == "sleep\x001234567\x00" {
			var pid int
			_, _ = fmt.Sscanf(path, "/proc/%d/", &pid)
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}
