package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// pauseTimeout is how long processes have to stand still.
const pauseTimeout = 10 * time.Second

// stopProcesses makes all processes of the container whose process 1 is init stand still, by SIGSTOP:
// a freezer would need a control group, which nobody has made. resume lets those go on that were not
// standing before.
func stopProcesses(init int) (resume func(), err error) {
	var stopped []int
	resume = func() {
		for _, pid := range stopped {
			_ = unix.Kill(pid, unix.SIGCONT)
		}
	}
	known := map[int]bool{}
	for until := time.Now().Add(pauseTimeout); ; time.Sleep(time.Millisecond) {
		moving := 0
		// Again until all stand: one that was not stopped yet may have made another.
		for pid, st := range processesOf(init) {
			if st.still() {
				known[pid] = true // stopped by us, or before us
				continue
			}
			moving = pid
			if !known[pid] {
				known[pid] = true
				if unix.Kill(pid, unix.SIGSTOP) == nil {
					stopped = append(stopped, pid)
				}
			}
		}
		switch {
		case moving == 0:
			return resume, nil
		case time.Now().After(until):
			resume()
			return nil, fmt.Errorf("process %d does not stand still for %v", moving, pauseTimeout)
		}
	}
}

// processesOf returns the processes in the PID namespace of init, and in those within.
func processesOf(init int) map[int]processStatus {
	space, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", init))
	all, inside := map[int]processStatus{}, map[int]processStatus{}
	dirs, _ := filepath.Glob("/proc/[1-9]*")
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		st, ok := readStatus(filepath.Base(dir))
		if !ok {
			continue
		}
		all[pid] = st
		if link, err := os.Readlink(dir + "/ns/pid"); err == nil && link == space {
			inside[pid] = st
		}
	}
	for more := true; more; {
		more = false
		for pid, st := range all {
			_, parent := inside[st.parent]
			if _, is := inside[pid]; parent && !is {
				inside[pid], more = st, true
			}
		}
	}
	return inside
}
