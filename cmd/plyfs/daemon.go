package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/mountopt"
	"github.com/plyfs/plyfs/layer/store/self"
	"github.com/plyfs/plyfs/overlay/fusefs"
)

const (
	// readyVariable holds the number of the descriptor on which a daemon reports
	// to the process that started it.
	readyVariable = "PLYFS_READY_FD"
	// logVariable names a file for the daemon's messages.
	logVariable = "PLYFS_LOG"
)

// What a daemon reports until it is ready: lines that start with one of these words.
const (
	reportSay   = "say "  // for the user, to be printed
	reportFail  = "fail " // the last line: why there is no mount
	reportReady = "ready" // the last line: the mount can be used
)

// startDaemon starts this program again with the same arguments, in a session
// of its own, and waits until it has mounted or failed. The daemon shares no
// descriptor with us but the pipe: whoever waits for our output to end (Podman)
// must not wait for the daemon.
func startDaemon(o *mountopt.Options) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	log := null
	if o.Log != "" {
		log, err = os.OpenFile(o.Log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		defer log.Close()
	}
	report, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer report.Close()
	attr := &syscall.ProcAttr{
		Env:   daemonEnv(),
		Files: []uintptr{null.Fd(), null.Fd(), log.Fd(), theirs.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}

	// Nor does it get what else we were started with: a lock file of a script, say.
	_ = unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)

	// Who interrupts us means the mount.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(stop)
	// Not os/exec, which first tries out in a process of its own what the kernel can do.
	pid, err := syscall.ForkExec(self.Program(), os.Args, attr)
	theirs.Close()
	if err != nil {
		return fmt.Errorf("starting the daemon: %w", err)
	}
	go func() {
		for range stop {
			_ = unix.Kill(pid, unix.SIGTERM)
		}
	}()
	ready, err := readReport(report)
	if ready || err != nil {
		return err
	}
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
			break
		}
	}
	how := fmt.Sprintf("exit status %d", status.ExitStatus())
	if status.Signaled() {
		how = "signal: " + status.Signal().String()
	}
	return fmt.Errorf("the daemon ended before the mount was ready (%s); --log FILE keeps its last words", how)
}

// daemonEnv is our environment, and tells the daemon how many processors its Go scheduler is to
// believe in: finding out by itself takes the runtime a fifth of a start (control groups, and a
// stop of the world to raise the number, see fusefs.MinProcs).
func daemonEnv() []string {
	env := append(os.Environ(), readyVariable+"=3")
	if os.Getenv("GOMAXPROCS") == "" {
		env = append(env, "GOMAXPROCS="+strconv.Itoa(max(fusefs.MinProcs, runtime.NumCPU())))
	}
	return env
}

// readReport prints what the daemon says until it is ready, or has failed, or the
// pipe ends with neither.
func readReport(r io.Reader) (ready bool, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if text, ok := strings.CutPrefix(line, reportSay); ok {
			fmt.Fprintln(os.Stderr, "plyfs: "+text)
		} else if text, ok := strings.CutPrefix(line, reportFail); ok {
			return false, errors.New(text)
		} else if line == reportReady {
			return true, nil
		}
	}
	return false, nil
}

// serveAsDaemon is what the started program does: serve, with messages to
// standard error (the log), and until the mount is ready also to fd.
func serveAsDaemon(o *mountopt.Options, mountpoint string, fd int) error {
	unix.CloseOnExec(fd)
	report := os.NewFile(uintptr(fd), "report")
	if report == nil {
		return usagef("%s=%d is not a descriptor", readyVariable, fd)
	}
	// A terminal's ^C goes to the foreground group; we left it, but not on purpose
	// of whoever closes the terminal.
	signal.Ignore(unix.SIGHUP)
	s := &service{options: o, mountpoint: mountpoint, stamp: true}
	s.relay = func(text string) { fmt.Fprintln(report, reportSay+text) }
	err := s.serve(func() error {
		s.mute()
		fmt.Fprintln(report, reportReady)
		return report.Close()
	})
	if err != nil && s.relay != nil {
		fmt.Fprintln(report, reportFail+oneLine(err.Error()))
	}
	return err
}

// serveHere serves in this process, with messages to standard error.
func serveHere(o *mountopt.Options, mountpoint string) error {
	if o.Log != "" {
		log, err := os.OpenFile(o.Log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		defer log.Close()
		if err := unix.Dup2(int(log.Fd()), 2); err != nil {
			return err
		}
	}
	s := &service{options: o, mountpoint: mountpoint, stamp: o.Log != ""}
	return s.serve(func() error { return nil })
}
