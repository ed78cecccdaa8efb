package keeper

import (
	"os"

	"golang.org/x/sys/unix"
)

// drainIfLeft has the container's output file take what the command prints on its terminal, if nobody is
// there any more who would read it: the command would hang as soon as the terminal is full. k.mu is held.
func (k *Keeper) drainIfLeft() {
	if k.command == nil || k.ended { // begin asks again
		return
	}
	for c := range k.clients {
		if c.attached {
			return
		}
	}
	k.drain(k.command, k.Store.ContainerPath(k.Container, "output"))
}

// drain writes what command prints on its terminal, if it has one, to a file until the other end of the terminal is
// closed. It goes on behind the caller's back, on a descriptor of its own: that of the command is closed at its end,
// and a process in the background may print after that.
func (k *Keeper) drain(command Command, path string) {
	terminal := command.Terminal()
	if terminal == nil {
		return
	}
	fd, err := unix.FcntlInt(terminal.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		k.Log("the terminal: %v", os.NewSyscallError("fcntl", err))
		return
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		unix.Close(fd)
		k.Log("%v", err)
		return
	}
	go func() {
		defer unix.Close(fd)
		defer out.Close()
		_ = copyTerminal(lossy{out}, fd)
	}()
}

// lossy is a file that may not take all: a full disk must not make the command hang.
type lossy struct{ f *os.File }

func (l lossy) Write(b []byte) (int, error) {
	_, _ = l.f.Write(b)
	return len(b), nil
}
