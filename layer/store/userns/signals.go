package userns

import (
	"os"
	"os/signal"
	"slices"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Signals of real time. Of the kernel's the C library keeps the first two for itself.
const (
	MinRealTime = unix.Signal(34)
	MaxRealTime = unix.Signal(64)
)

// Meant are the signals that somebody may send this process and mean what it runs. Those left are of this
// process's own doing (SIGPIPE, SIGCHLD, SIGURG, faults), stop it alone (SIGTSTP), or are what nohup keeps away.
func Meant() []os.Signal {
	signals := []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGVTALRM,
		unix.SIGCONT, unix.SIGWINCH, unix.SIGIO, unix.SIGPWR}
	for sig := MinRealTime; sig <= MaxRealTime; sig++ {
		signals = append(signals, sig)
	}
	if !signal.Ignored(unix.SIGHUP) {
		signals = append(signals, unix.SIGHUP)
	}
	return signals
}

// forwardSignals hands signals to p. Those of the keyboard reach it without us: it is in our
// process group. The function it returns ends that.
func forwardSignals(p *os.Process) func() {
	list := Meant()
	if term.IsTerminal(0) || term.IsTerminal(1) || term.IsTerminal(2) {
		list = slices.DeleteFunc(list, func(s os.Signal) bool { return s == unix.SIGINT || s == unix.SIGQUIT })
		signal.Ignore(unix.SIGINT, unix.SIGQUIT)
	}
	ch := make(chan os.Signal, 8)
	signal.Notify(ch, list...)
	go func() {
		for s := range ch {
			_ = p.Signal(s)
		}
	}()
	return func() {
		signal.Stop(ch)
		close(ch)
	}
}
