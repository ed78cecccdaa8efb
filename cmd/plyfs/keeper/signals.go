package keeper

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer/store/userns"
)

const minRealTime, maxRealTime = userns.MinRealTime, userns.MaxRealTime

// StopSignal reads the name or number of a signal; SIGTERM if there is none, or it makes no sense.
func StopSignal(name string) unix.Signal {
	if sig, err := ParseSignal(name); err == nil {
		return sig
	}
	return unix.SIGTERM
}

// ParseSignal reads the name of a signal, with or without SIG, or its number. Real-time signals are RTMIN+n and RTMAX-n.
func ParseSignal(name string) (unix.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n <= int(maxRealTime) {
		return unix.Signal(n), nil
	}
	short := strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if sig := unix.SignalNum("SIG" + short); sig != 0 {
		return sig, nil
	}
	for start, base := range map[string]unix.Signal{"RTMIN": minRealTime, "RTMAX": maxRealTime} {
		rest, ok := strings.CutPrefix(short, start)
		if !ok {
			continue
		}
		n, err := strconv.Atoi(rest)
		if sig := base + unix.Signal(n); rest == "" || err == nil && strings.ContainsAny(rest[:1], "+-") && sig >= minRealTime && sig <= maxRealTime {
			return sig, nil
		}
	}
	return 0, fmt.Errorf("%q is no signal", name)
}
