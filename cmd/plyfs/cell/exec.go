package cell

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exec runs another command in the cell of p, which Start returned. Root and Hostname of s
// do not count. The command ends when process 1 does.
//
// A process between us and the command enters the namespaces: only a child can be in another
// process namespace than its parent. We could not fork the command ourselves: the runtime stops all
// else while the child executes, and the file to execute is served by us.
func (p *Process) Exec(s *Spec, stdio [3]*os.File) (*Process, error) {
	if p.pidfd == nil {
		return nil, errors.New("this kernel gives no descriptors of processes (pidfd)")
	}
	cmd := stage(execName, stdio, s.Terminal)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
	q, err := launch(cmd, s, p.pidfd)
	if err != nil {
		return nil, err
	}
	return q, nil
}

// execStage enters the namespaces, starts the command, and ends with its exit code.
func execStage() {
	runtime.LockOSThread()
	s, err := readSpec()
	if err != nil {
		fail(err)
	}
	cmd, err := startInside(s)
	if err != nil {
		fail(err)
	}
	_ = sendReport(reportFD, &report{PID: outerPID(cmd.Process)}, -1)
	// Keep nothing open that somebody may wait for the end of.
	for fd := range 3 {
		unix.Close(fd)
	}
	unix.Close(reportFD)
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT) // the command gets its own
	_ = cmd.Wait()
	os.Exit(ExitCode(cmd.ProcessState))
}

// outerPID is the process id of p in our process namespace: the number that the fork returned.
func outerPID(p *os.Process) int { return p.Pid }

// startInside moves this thread into the namespaces of the target, and starts the command
// from it.
func startInside(s *Spec) (*exec.Cmd, error) {
	unix.CloseOnExec(targetFD)
	// A thread that shares its root directory with others cannot change its mounts.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, fmt.Errorf("a thread of its own: %w", err)
	}
	allowed := groupsAllowed() // in the host's /proc: ours is not in the other one
	if err := unix.Setns(targetFD, unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWUTS|unix.CLONE_NEWIPC); err != nil {
		if err == unix.ESRCH {
			return nil, errEnded
		}
		return nil, fmt.Errorf("entering the container: %w", err)
	}
	unix.Umask(0o022)
	who, err := lookUp(s.User, inside)
	if err != nil {
		return nil, err
	}
	if e := enterDir(s.Dir, false); e != nil {
		return nil, e
	}
	if err := dropBounding(); err != nil {
		return nil, fmt.Errorf("capabilities: %w", err)
	}
	env := WithHome(s.Env, who.Home)
	path, e := find(s.Args, env, ".")
	if e != nil {
		return nil, e
	}
	cmd := &exec.Cmd{Path: path, Args: s.Args, Env: env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true, // no parent-death signal: a parent outside looks like none; the command goes with process 1
		Credential: &syscall.Credential{Uid: who.UID, Gid: who.GID, Groups: who.Groups, NoSetGroups: !allowed},
	}
	if s.Terminal {
		slave, err := newTerminal(reportFD, s)
		if err != nil {
			return nil, err
		}
		defer slave.Close()
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr.Setctty = true
	}
	resetSignal(unix.SIGHUP)
	resetSignal(unix.SIGPIPE)
	if err := cmd.Start(); err != nil {
		if errors.Is(err, unix.EINVAL) && who.UID|who.GID != 0 {
			return nil, identityError("user", who.UID, unix.EINVAL)
		}
		if errors.Is(err, unix.ENOMEM) && endsSoon(targetFD) {
			return nil, errEnded
		}
		return nil, executeError(s.Args[0], err)
	}
	return cmd, nil
}

var errEnded = errors.New("the container has just ended")

// endsSoon reports whether the process ends: the kernel says ENOMEM to a fork once process 1 is being killed, which is
// before its descriptor tells.
func endsSoon(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 1000)
		if err != unix.EINTR {
			return n > 0
		}
	}
}
