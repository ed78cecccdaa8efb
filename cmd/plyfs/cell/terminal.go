package cell

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// newTerminal makes a terminal of the cell's own /dev/pts, sends its master over sock, and
// returns the other end. It has its size before the command can ask for it.
func newTerminal(sock int, s *Spec) (*os.File, error) {
	master, err := unix.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("a new terminal: %w", err)
	}
	defer unix.Close(master)
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("a new terminal: %w", err)
	}
	if s.Rows != 0 && s.Columns != 0 {
		_ = unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Columns})
	}
	path := "/dev/pts/" + strconv.Itoa(n)
	slave, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("a new terminal: %w", err)
	}
	if err := sendReport(sock, &report{}, master); err != nil {
		unix.Close(slave)
		return nil, fmt.Errorf("handing out the terminal: %w", err)
	}
	return os.NewFile(uintptr(slave), path), nil
}

// becomeTerminal makes slave the controlling terminal of this process, a leader of its
// session, and its standard input, output and error.
func becomeTerminal(slave *os.File) error {
	fd := int(slave.Fd())
	if err := unix.IoctlSetInt(fd, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("controlling terminal: %w", err)
	}
	for to := range 3 {
		if err := unix.Dup3(fd, to, 0); err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
	}
	return nil
}

// SizedLike returns s with the size of the terminal that f is; s itself if it is none.
func (s *Spec) SizedLike(f *os.File) *Spec {
	if !s.Terminal || f == nil {
		return s
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return s
	}
	sized := *s
	sized.Rows, sized.Columns = size.Row, size.Col
	return &sized
}

// Resize sets the size of the terminal behind master.
func Resize(master *os.File, rows, columns uint16) error {
	return unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
}
