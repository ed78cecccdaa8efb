package harness

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Terminal is a terminal with a command in it and somebody who types.
type Terminal struct {
	t      testing.TB
	cmd    *exec.Cmd
	master *os.File

	mu      sync.Mutex
	printed []byte // guarded by mu
}

// InTerminal starts cmd on a terminal of so many rows and columns, as its foreground process.
func InTerminal(t testing.TB, cmd *exec.Cmd, rows, columns int) *Terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	x := &Terminal{t: t, cmd: cmd, master: master}
	t.Cleanup(func() { master.Close() })
	x.Resize(rows, columns)
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	go x.read()
	return x
}

func (x *Terminal) read() {
	buf := make([]byte, 4096)
	for {
		n, err := x.master.Read(buf)
		x.mu.Lock()
		x.printed = append(x.printed, buf[:n]...)
		x.mu.Unlock()
		if err != nil { // EIO: nobody has the other end any more
			return
		}
	}
}

// Resize changes the size of the terminal, which its foreground process hears of.
func (x *Terminal) Resize(rows, columns int) {
	x.t.Helper()
	size := unix.Winsize{Row: uint16(rows), Col: uint16(columns)}
	if err := unix.IoctlSetWinsize(int(x.master.Fd()), unix.TIOCSWINSZ, &size); err != nil {
		x.t.Error(err)
	}
}

// Type types text; ^C is "\x03".
func (x *Terminal) Type(text string) {
	x.t.Helper()
	if _, err := x.master.WriteString(text); err != nil {
		x.t.Error(err)
	}
}

// Printed returns all that was printed so far.
func (x *Terminal) Printed() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return string(x.printed)
}

// Await waits until text was printed, a minute at most.
func (x *Terminal) Await(text string) {
	x.t.Helper()
	for until := time.Now().Add(time.Minute); !strings.Contains(x.Printed(), text); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(until) {
			x.t.Fatalf("%q was not printed; this was: %q", text, x.Printed())
		}
	}
}

// Cooked reports whether the terminal echoes and edits lines, as a shell leaves it.
func (x *Terminal) Cooked() bool {
	x.t.Helper()
	attr, err := unix.IoctlGetTermios(int(x.master.Fd()), unix.TCGETS)
	if err != nil {
		x.t.Fatal(err)
	}
	return attr.Lflag&unix.ICANON != 0 && attr.Lflag&unix.ECHO != 0
}

// Cook makes the terminal echo and edit lines, as a shell does when its job was stopped.
func (x *Terminal) Cook() {
	x.t.Helper()
	attr, err := unix.IoctlGetTermios(int(x.master.Fd()), unix.TCGETS)
	if err == nil {
		attr.Lflag |= unix.ICANON | unix.ECHO
		err = unix.IoctlSetTermios(int(x.master.Fd()), unix.TCSETS, attr)
	}
	if err != nil {
		x.t.Fatal(err)
	}
}

// Hangup takes the terminal away, as when its window is closed.
func (x *Terminal) Hangup() { x.master.Close() }

// Gone waits for the end of the command, whatever its code.
func (x *Terminal) Gone() { _ = x.cmd.Wait() }

// Ends waits for the end of the command, which must end with this exit code.
func (x *Terminal) Ends(code int) {
	x.t.Helper()
	if got := ExitCode(x.cmd.Wait()); got != code {
		x.t.Errorf("exit code %d, want %d; printed: %q", got, code, x.Printed())
	}
}
