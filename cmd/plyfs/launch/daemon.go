package launch

import (
	"os"
	"strconv"
	"sync"
	"syscall"
)

// readyVariable holds the number of the descriptor on which a daemon reports
// to the process that started it.
const readyVariable = "PLYFS_READY_FD"

// What a daemon reports until it is ready: lines that start with one of these words.
const (
	reportSay   = "say "  // for the user, to be printed
	reportFail  = "fail " // the last line: an exit code, and why there is no mount
	reportReady = "ready" // the last line: the mount can be used
)

var (
	reportLock sync.Mutex
	// report is where this process reports to, if it was started as a daemon, until Ready or Failed; guarded by
	// reportLock.
	report *os.File
)

// takeReport finds it.
func takeReport() bool {
	v, ok := os.LookupEnv(readyVariable)
	if !ok {
		return false
	}
	os.Unsetenv(readyVariable)
	if fd, err := strconv.Atoi(v); err == nil && fd > 2 {
		syscall.CloseOnExec(fd)
		report = os.NewFile(uintptr(fd), "report")
	}
	return true
}

// Waited says whether this process is a daemon, for whose mount another process waits.
func Waited() bool {
	reportLock.Lock()
	defer reportLock.Unlock()
	return report != nil
}

// Say has whoever waits print a line.
func Say(line string) {
	reportLock.Lock()
	defer reportLock.Unlock()
	if report != nil {
		_, _ = report.WriteString(reportSay + line + "\n")
	}
}

// Ready says that the mount can be used. An error means that nobody waits any more.
func Ready() error { return last(reportReady) }

// Failed says, in one line, why there is no mount, and which code to exit with. Nobody may wait.
func Failed(code int, line string) {
	_ = last(reportFail + strconv.Itoa(code) + " " + line)
}

func last(line string) error {
	reportLock.Lock()
	defer reportLock.Unlock()
	if report == nil {
		return nil
	}
	_, err := report.WriteString(line + "\n")
	if e := report.Close(); err == nil {
		err = e
	}
	report = nil
	return err
}
