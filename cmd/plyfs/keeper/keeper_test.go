package keeper

import (
	"math"
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
