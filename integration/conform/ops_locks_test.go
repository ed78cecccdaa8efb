package conform

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var locked = []string{"f file 0123456789\nf other 0123456789"}

// partner is a second process that does as it is told, a line at a time; see helperLoop.
type partner struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func newPartner(t *testing.T) *partner {
	t.Helper()
	p := &partner{cmd: exec.Command("/proc/self/exe")}
	p.cmd.Env = append(os.Environ(), helperVariable+"=loop")
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	must(t, err)
	out, err := p.cmd.StdoutPipe()
	must(t, err, p.cmd.Start())
	p.in, p.out = in, bufio.NewReader(out)
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	return p
}

// tell gives an order, ask waits for its answer too.
func (p *partner) tell(t *testing.T, order ...any) {
	t.Helper()
	_, err := fmt.Fprintln(p.in, order...)
	must(t, err)
}

func (p *partner) answer(t *testing.T) string {
	t.Helper()
	s, err := p.out.ReadString('\n')
	must(t, err)
	return strings.TrimSpace(s)
}

func (p *partner) ask(t *testing.T, order ...any) string {
	t.Helper()
	p.tell(t, order...)
	return p.answer(t)
}

// says fails the test unless the partner answers what is wanted.
func (p *partner) says(t *testing.T, want string, order ...any) {
	t.Helper()
	if got := p.ask(t, order...); got != want {
		t.Errorf("%v: %s, want %s", order, got, want)
	}
}

// waits fails the test unless the process sleeps in the kernel for a lock: /proc/locks says so, without
// the process where the lock belongs to an open file.
func (p *partner) waits(t *testing.T) {
	t.Helper()
	for range 2000 {
		b, err := os.ReadFile("/proc/locks")
		must(t, err)
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 5 && f[1] == "->" && (f[5] == fmt.Sprint(p.cmd.Process.Pid) || f[2] == "OFDLCK") {
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("does not wait for the lock")
}

// helperLoop is a partner's main program: it has descriptors by number, and prints an errno's name or
// "ok" for each order.
func helperLoop() int {
	fds := map[int]int{}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		f := strings.Fields(in.Text())
		n := number(f[1])
		var err error
		switch f[0] {
		case "open": // N PATH
			fds[n], err = unix.Open(f[2], unix.O_RDWR|unix.O_CLOEXEC, 0)
		case "close":
			err = unix.Close(fds[n])
		case "flock": // N HOW
			err = unix.Flock(fds[n], number(f[2]))
		case "lock": // N COMMAND TYPE START LENGTH
			lk := unix.Flock_t{Type: int16(number(f[3])), Start: int64(number(f[4])), Len: int64(number(f[5]))}
			err = unix.FcntlFlock(uintptr(fds[n]), number(f[2]), &lk)
			if err == nil && (number(f[2]) == unix.F_GETLK || number(f[2]) == unix.F_OFD_GETLK) {
				fmt.Println(lk.Type, lk.Start, lk.Len, lk.Pid)
				continue
			}
		}
		if e, ok := err.(unix.Errno); ok {
			fmt.Println(unix.ErrnoName(e))
		} else {
			fmt.Println("ok")
		}
	}
	return 0
}

func TestFlock(t *testing.T) {
	everywhere(t, locked, func(t *testing.T, v *view) {
		const sh, ex, un, nb = unix.LOCK_SH, unix.LOCK_EX, unix.LOCK_UN, unix.LOCK_NB
		a, b := newPartner(t), newPartner(t)
		a.says(t, "ok", "open", 1, v.path("file"))
		a.says(t, "ok", "open", 2, v.path("file"))
		b.says(t, "ok", "open", 1, v.path("file"))
		b.says(t, "ok", "open", 2, v.path("other"))
		a.says(t, "ok", "flock", 1, sh)
		b.says(t, "ok", "flock", 1, sh|nb)
		a.says(t, "EAGAIN", "flock", 1, ex|nb)
		b.says(t, "ok", "flock", 1, un)
		a.says(t, "ok", "flock", 1, ex|nb)
		b.says(t, "EAGAIN", "flock", 1, sh|nb)
		b.says(t, "ok", "flock", 2, ex|nb) // another file
		// A lock belongs to the open file, not to the process.
		a.says(t, "EAGAIN", "flock", 2, sh|nb)
		// A write that copies the file up ends no lock.
		must(t, os.WriteFile(v.path("file"), []byte("changed"), 0o644))
		b.says(t, "EAGAIN", "flock", 1, ex|nb)
		// Released at close, to whoever waits.
		b.tell(t, "flock", 1, ex)
		b.waits(t)
		a.says(t, "ok", "close", 1)
		if s := b.answer(t); s != "ok" {
			t.Errorf("after the close: %s", s)
		}
		// And at exit.
		a.tell(t, "flock", 2, ex)
		a.waits(t)
		must(t, b.cmd.Process.Kill())
		if s := a.answer(t); s != "ok" {
			t.Errorf("after the exit: %s", s)
		}
		// Who is killed while waiting leaves nothing.
		c := newPartner(t)
		c.says(t, "ok", "open", 1, v.path("file"))
		c.tell(t, "flock", 1, ex)
		c.waits(t)
		must(t, c.cmd.Process.Kill())
		_ = c.cmd.Wait()
		a.says(t, "ok", "flock", 2, un)
		a.says(t, "ok", "flock", 2, ex|nb)
	})
}

func TestPOSIXLocks(t *testing.T) {
	everywhere(t, locked, func(t *testing.T, v *view) {
		const set, wait, get = unix.F_SETLK, unix.F_SETLKW, unix.F_GETLK
		const rd, wr, un = unix.F_RDLCK, unix.F_WRLCK, unix.F_UNLCK
		a, b := newPartner(t), newPartner(t)
		for _, p := range []*partner{a, b} {
			p.says(t, "ok", "open", 1, v.path("file"))
			p.says(t, "ok", "open", 2, v.path("file"))
		}
		a.says(t, "ok", "lock", 1, set, wr, 2, 3)
		b.says(t, "EAGAIN", "lock", 1, set, rd, 4, 1)
		b.says(t, "ok", "lock", 1, set, wr, 5, 0)
		b.says(t, "ok", "lock", 1, set, wr, 0, 2)
		b.says(t, fmt.Sprint(wr, 2, 3, a.cmd.Process.Pid), "lock", 1, get, rd, 3, 1)
		b.says(t, fmt.Sprint(un, 6, 1, 0), "lock", 1, get, rd, 6, 1)
		a.says(t, "ok", "lock", 1, set, rd, 3, 2) // now 2 is written, 3 and 4 read
		b.says(t, "ok", "lock", 1, set, rd, 3, 2)
		b.says(t, "EAGAIN", "lock", 1, set, rd, 2, 1)
		a.says(t, "ok", "lock", 1, set, un, 2, 1)
		b.says(t, "ok", "lock", 1, set, wr, 2, 1)
		// Two who wait for each other: the second is told.
		b.says(t, "ok", "lock", 1, set, un, 3, 2)
		a.tell(t, "lock", 1, wait, wr, 2, 1)
		a.waits(t)
		b.says(t, "EDEADLK", "lock", 1, wait, wr, 3, 1)
		// Closing any descriptor of the file ends a process's locks.
		b.says(t, "ok", "close", 2)
		if s := a.answer(t); s != "ok" {
			t.Errorf("after the close: %s", s)
		}
		b.says(t, "ok", "lock", 1, set, wr, 7, 0)
		a.tell(t, "lock", 1, wait, wr, 0, 0)
		a.waits(t)
		must(t, b.cmd.Process.Kill())
		if s := a.answer(t); s != "ok" {
			t.Errorf("after the exit: %s", s)
		}
		if got := second(t, "lock", v.path("file"), fmt.Sprint(set), fmt.Sprint(rd), "0", "1"); got != "EAGAIN" {
			t.Errorf("a third process: %s", got)
		}
	})
}

// TestOFDLocks: locks of an open file, not of a process.
func TestOFDLocks(t *testing.T) {
	everywhere(t, locked, func(t *testing.T, v *view) {
		const set, wait = unix.F_OFD_SETLK, unix.F_OFD_SETLKW
		const rd, wr, un = unix.F_RDLCK, unix.F_WRLCK, unix.F_UNLCK
		a, b := newPartner(t), newPartner(t)
		a.says(t, "ok", "open", 1, v.path("file"))
		a.says(t, "ok", "open", 2, v.path("file"))
		b.says(t, "ok", "open", 1, v.path("file"))
		a.says(t, "ok", "lock", 1, set, wr, 0, 5)
		a.says(t, "EAGAIN", "lock", 2, set, rd, 4, 1)
		a.says(t, "ok", "lock", 2, set, wr, 5, 5)
		b.says(t, "EAGAIN", "lock", 1, set, rd, 0, 1)
		b.says(t, "EAGAIN", "lock", 1, unix.F_SETLK, rd, 0, 1) // against the other kind
		b.says(t, fmt.Sprint(wr, 0, 5, -1), "lock", 1, unix.F_OFD_GETLK, rd, 0, 1)
		a.says(t, "ok", "close", 2) // takes its own alone
		b.says(t, "ok", "lock", 1, set, rd, 5, 5)
		b.says(t, "EAGAIN", "lock", 1, set, rd, 0, 1)
		b.tell(t, "lock", 1, wait, wr, 0, 1)
		b.waits(t)
		a.says(t, "ok", "lock", 1, set, un, 0, 1)
		if s := b.answer(t); s != "ok" {
			t.Errorf("after the unlock: %s", s)
		}
		must(t, b.cmd.Process.Kill())
		_ = b.cmd.Wait()
		a.says(t, "ok", "lock", 1, set, wr, 0, 0)
	})
}
