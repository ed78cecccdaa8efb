package keeper

import (
	"bufio"
	"bytes"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A subreaper gets the orphans of a runtime too: crun exec of a command that does not
// exist leaves the process it had put into the container. As long as such a zombie is not waited
// for, the kernel does not let process 1 of the container end (zap_pid_ns_processes
// in kernel/pid_namespace.c), not even by SIGKILL.

// reap waits for all orphans in PID namespaces within ours, now and whenever a child ends. The
// others do no harm: they go with the keeper.
func (o *OCI) reap() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	go func() {
		for range ended {
			o.reapOrphans()
		}
	}()
}

func (o *OCI) reapOrphans() {
	o.mu.Lock() // no command is between its start and its entry in o.commands
	defer o.mu.Unlock()
	self, ok := readStatus("self")
	if !ok {
		return
	}
	dirs, _ := filepath.Glob("/proc/[1-9]*")
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || o.commands[pid] {
			continue
		}
		st, ok := readStatus(filepath.Base(dir))
		if ok && st.state == 'Z' && st.parent == os.Getpid() && st.depth > self.depth {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
	}
}

// processStatus is what is needed of /proc/PID/status.
type processStatus struct {
	state  byte // a letter, see proc_pid_status(5)
	parent int
	depth  int // PID namespaces it has an id in, from ours on
}

// still says that the process does nothing: it is stopped, traced, or has ended.
func (st processStatus) still() bool { return strings.IndexByte("TtZX", st.state) >= 0 }

func readStatus(pid string) (st processStatus, ok bool) {
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return st, false
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "State":
			if value != "" {
				st.state = value[0]
			}
		case "PPid":
			st.parent, _ = strconv.Atoi(value)
		case "NSpid":
			st.depth = len(strings.Fields(value))
		}
	}
	return st, st.depth > 0
}
