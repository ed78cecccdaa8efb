package keeper

import (
	"errors"
	"io"
	"math"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseSignal(t *testing.T) {
	for in, want := range map[string]unix.Signal{"TERM": unix.SIGTERM, "SIGKILL": unix.SIGKILL, "9": unix.SIGKILL, "64": 64,
		"winch": unix.SIGWINCH, "sigUsr1": unix.SIGUSR1, "SIGRTMIN+3": 37, "rtmin": 34, "RTMIN+30": 64, "SIGRTMAX-1": 63, "RTMAX": 64,
		"RTMIN+31": 0, "RTMIN-1": 0, "RTMAX+1": 0, "RTMIN3": 0, "RTMIN+": 0, "RTMIN+18446744073709551616": 0, "RTMIN+4294967296": 0,
		"": 0, "0": 0, "65": 0, "-9": 0, "9x": 0, "15 ": 0, "SIG": 0, "SIG9": 0} {
		if got, err := ParseSignal(in); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
}

// However long a command is given, it is not killed at once instead.
func TestGrace(t *testing.T) {
	longest := time.Duration(mostSeconds) * time.Second
	for seconds, want := range map[int]time.Duration{0: 0, -1: -time.Second, math.MinInt: -time.Second, 10: 10 * time.Second,
		math.MaxInt32: math.MaxInt32 * time.Second, 18446744074: longest, math.MaxInt: longest} {
		if got := grace(seconds); got != want {
			t.Errorf("%d seconds: %v, want %v", seconds, got, want)
		}
	}
}

// A keeper that ends with a request unread is one that is gone, for who sends the next one, too: it is asked again then.
func TestSendToWhoIsGone(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := NewConn(os.NewFile(uintptr(fds[0]), "ours")), NewConn(os.NewFile(uintptr(fds[1]), "theirs"))
	defer ours.Close()
	if err := ours.Send(&Message{Op: opDone}); err != nil {
		t.Error(err)
	}
	theirs.Close()
	if err := ours.Send(&Message{Op: opDone}); !errors.Is(err, unix.EPIPE) {
		t.Errorf("%v, want %v", err, unix.EPIPE)
	}
	if _, _, err := ours.Receive(); err != io.EOF {
		t.Errorf("after that: %v", err)
	}
}
