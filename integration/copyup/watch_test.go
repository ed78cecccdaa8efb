package copyup

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/integration/harness"
)

// watcher is a plyfs watch that runs on a terminal of its own.
type watcher struct {
	cmd      *exec.Cmd
	keyboard *os.File
	lines    chan string
	ended    chan error
}

// watch starts plyfs watch, and returns when it has shown a first event: that of the file "first".
func watch(t *testing.T, m *harness.Mount, args ...string) *watcher {
	t.Helper()
	w := &watcher{cmd: exec.Command(harness.Binary(), append(append([]string{"watch"}, args...), m.Dir)...),
		lines: make(chan string, 1000), ended: make(chan error, 1)}
	var terminal *os.File
	terminal, w.keyboard = openTerminal(t)
	defer terminal.Close()
	w.cmd.Stdin, w.cmd.Stdout, w.cmd.Stderr = terminal, terminal, terminal
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(t, w.cmd.Start())
	t.Cleanup(func() { _ = w.cmd.Process.Kill() })
	go func() {
		for in := bufio.NewScanner(w.keyboard); in.Scan(); {
			w.lines <- strings.TrimRight(in.Text(), "\r")
		}
		close(w.lines)
	}()
	go func() { w.ended <- w.cmd.Wait() }()
	for i := 0; ; i++ {
		if i > 1000 {
			t.Fatal("plyfs watch shows nothing")
		}
		must(t, os.Chmod(m.Path("first/"+itoa(i)), 0o600))
		select {
		case line := <-w.lines:
			if !strings.Contains(line, "/first/") {
				t.Fatalf("it shows %q", line)
			}
			return w
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// next returns the next line that is not about what watch did itself.
func (w *watcher) next(t *testing.T) string {
	t.Helper()
	for {
		select {
		case line, ok := <-w.lines:
			if !ok {
				t.Fatal("plyfs watch has ended")
			}
			if !strings.Contains(line, "/first") {
				return line
			}
		case <-time.After(patience):
			t.Fatal("plyfs watch shows nothing")
		}
	}
}

func (w *watcher) end(t *testing.T) {
	t.Helper()
	select {
	case err := <-w.ended:
		if err != nil {
			t.Errorf("plyfs watch: %v", err)
		}
	case <-time.After(patience):
		t.Error("plyfs watch does not end")
	}
}

func watched(t *testing.T) (*harness.Layers, *harness.Mount) {
	t.Helper()
	tree := "F big 300k\nf small x\n"
	for i := range 1001 {
		tree += "f first/" + itoa(i) + " x\n"
	}
	l := harness.NewLayers(t, tree)
	m := l.Plyfs(t, manual...)
	must(t, os.Chmod(m.Path("first"), 0o700)) // else the copy-up of the directory may be the event that watch shows first
	return l, m
}

// TestWatch looks at a mount from a second terminal, and ends with ^C.
func TestWatch(t *testing.T) {
	l, m := watched(t)
	text, lines := watch(t, m), watch(t, m, "--json")
	w := events(t, m)
	writeAt(t, m.Path("big"), nil, "x", 100_000)
	must(t, os.Chmod(m.Path("small"), 0o600))
	want := w.next(t)
	if len(want) != 2 {
		t.Fatalf("events: %+v", want)
	}
	for i := range want {
		var got cow.Event
		line := lines.next(t)
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if !got.Time.Equal(want[i].Time) {
			t.Errorf("at %v, want %v", got.Time, want[i].Time)
		}
		got.Time = want[i].Time
		if got != want[i] {
			t.Errorf("watch --json shows\n%+v, want\n%+v", got, want[i])
		}
	}
	form := `^\d\d:\d\d:\d\d\.\d\d\d /big: write of 1 B by process ` + itoa(int(want[0].PID)) + ` \(` + regexp.QuoteMeta(want[0].Process) + `\), from ` +
		regexp.QuoteMeta(l.Lowers[0]) + `, range: 4\.0 KiB of 300\.0 KiB copied, \d.*iB in the upper, in \d\S+s$`
	if line := text.next(t); !regexp.MustCompile(form).MatchString(line) {
		t.Errorf("watch shows %q, want %s", line, form)
	}
	if line := text.next(t); !strings.Contains(line, " /small: chmod by process ") {
		t.Errorf("watch shows %q", line)
	}
	for _, w := range []*watcher{text, lines} {
		_, err := w.keyboard.Write([]byte{3}) // ^C
		must(t, err)
		w.end(t)
	}
}

// TestWatchEndsWithTheMount, whichever way that goes; nor does it keep a mount from being unmounted. Of a daemon that was
// killed it says so.
func TestWatchEndsWithTheMount(t *testing.T) {
	for name, how := range map[string]struct {
		end  func(t *testing.T, m *harness.Mount)
		says string
	}{
		"unmounted": {func(t *testing.T, m *harness.Mount) {
			if out, err := harness.Run("umount", m.Dir); err != nil {
				t.Errorf("umount: %v\n%s", err, out)
			}
		}, ""},
		"detached": {func(t *testing.T, m *harness.Mount) { must(t, unix.Unmount(m.Dir, unix.MNT_DETACH)) }, ""},
		"killed":   {func(t *testing.T, m *harness.Mount) { must(t, unix.Kill(m.PID(), unix.SIGKILL)) }, "dead daemon"},
	} {
		t.Run(name, func(t *testing.T) {
			_, m := watched(t)
			w := watch(t, m)
			how.end(t, m)
			if how.says == "" {
				w.end(t)
				return
			}
			if line := w.next(t); !strings.Contains(line, how.says) {
				t.Errorf("plyfs watch says %q", line)
			}
			select {
			case err := <-w.ended:
				if err == nil {
					t.Error("plyfs watch ends as if nothing had happened")
				}
			case <-time.After(patience):
				t.Error("plyfs watch does not end")
			}
		})
	}
}

// TestWatchOfAStuckMount: ^C ends it also while the daemon does not answer.
func TestWatchOfAStuckMount(t *testing.T) {
	harness.NeedRoot(t) // for fusectl
	_, m := watched(t)
	w := watch(t, m)
	defer func() { must(t, unix.Kill(m.PID(), unix.SIGCONT)) }()
	stopIdle(t, m)
	time.Sleep(3 * 100 * time.Millisecond) // it asks every 100 ms, and is not answered any more
	_, err := w.keyboard.Write([]byte{3})
	must(t, err)
	select {
	case <-w.ended:
	case <-time.After(patience):
		t.Error("plyfs watch hangs")
	}
}

// stopIdle stops the daemon where it has no request in hand: a caller whose request was taken is one that the kernel
// lets nobody kill (request_wait_answer in fs/fuse/dev.c).
func stopIdle(t *testing.T, m *harness.Mount) {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(m.Dir, &st))
	connections := harness.Dir(t)
	must(t, unix.Mount("fusectl", connections, "fusectl", 0, ""))
	defer func() { must(t, unix.Unmount(connections, 0)) }()
	waiting := filepath.Join(connections, itoa(int(unix.Minor(st.Dev))), "waiting")
	for range 100 {
		must(t, unix.Kill(m.PID(), unix.SIGSTOP))
		for !stopped(t, m.PID()) {
			time.Sleep(time.Millisecond)
		}
		b, err := os.ReadFile(waiting)
		must(t, err)
		if strings.TrimSpace(string(b)) == "0" {
			return
		}
		must(t, unix.Kill(m.PID(), unix.SIGCONT))
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the daemon is never idle")
}

// stopped says whether all threads of a process have stopped.
func stopped(t *testing.T, pid int) bool {
	t.Helper()
	tasks, err := filepath.Glob("/proc/" + itoa(pid) + "/task/*/stat")
	must(t, err)
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err == nil && !strings.Contains(string(b), ") T ") {
			return false
		}
	}
	if len(tasks) == 0 {
		t.Fatal("the daemon is gone")
	}
	return true
}
