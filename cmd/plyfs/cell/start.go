package cell

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer/store/self"
)

// Process is a command that was started in a view.
type Process struct {
	PID    int      // as this process sees it
	Master *os.File // of its terminal; nil without one. The owner of Process closes it

	pidfd *os.File // process 1 of the cell; only of what Start returned
	done  chan struct{}
	state *os.ProcessState // after done
	err   error
}

// A stage finds its descriptors here.
const (
	reportFD = 3
	specFD   = 4
	targetFD = 5 // Exec: process 1 of the cell
)

// Names under which a copy of this program is a stage.
const (
	initName = "plyfs: container init"
	execName = "plyfs: container exec"
)

// Init is to be called at the beginning of main: in a copy of the program that is a stage of
// a cell it does its work, and does not return.
func Init() {
	if len(os.Args) != 1 {
		return
	}
	switch os.Args[0] {
	case initName:
		initStage()
	case execName:
		execStage()
	}
}

// Start runs the command of s in a new cell. Without a terminal stdio are its standard
// input, output and error. The command is killed if this process dies. An *Error says why it
// was not run.
func Start(s *Spec, stdio [3]*os.File) (*Process, error) {
	cmd := stage(initName, stdio, s.Terminal)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Setsid:     true,
		Pdeathsig:  unix.SIGKILL,
	}
	p, err := launch(cmd, s, nil)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// stage returns this program as one of the stages.
func stage(name string, stdio [3]*os.File, terminal bool) *exec.Cmd {
	cmd := exec.Command(self.Program())
	cmd.Args = []string{name}
	cmd.Env = []string{}
	if !terminal {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = fileOrNil(stdio[0]), fileOrNilW(stdio[1]), fileOrNilW(stdio[2])
	}
	return cmd
}

// A nil *os.File in an interface would not be nil.
func fileOrNil(f *os.File) io.Reader {
	if f == nil {
		return nil
	}
	return f
}

func fileOrNilW(f *os.File) io.Writer {
	if f == nil {
		return nil
	}
	return f
}

// launch starts a stage and waits until the command runs.
func launch(cmd *exec.Cmd, s *Spec, target *os.File) (*Process, error) {
	ours, theirs, err := reportPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	defer theirs.Close()
	spec, err := specFile(s)
	if err != nil {
		return nil, err
	}
	defer spec.Close()
	cmd.ExtraFiles = []*os.File{theirs, spec}
	if target != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, target)
	}
	p := &Process{done: make(chan struct{})}
	started := make(chan error)
	go p.run(cmd, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting a process in namespaces of its own: %w", err)
	}
	theirs.Close()
	if err := p.follow(int(ours.Fd())); err != nil {
		_ = cmd.Process.Kill()
		<-p.done
		p.Close()
		return nil, err
	}
	return p, nil
}

// run starts cmd and waits for it, on one thread: the parent-death signal is tied to it.
func (p *Process) run(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var pidfd int
	cmd.SysProcAttr.PidFD = &pidfd
	if err := cmd.Start(); err != nil {
		started <- err
		return
	}
	p.PID = cmd.Process.Pid
	if pidfd >= 0 {
		p.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	}
	started <- nil
	p.err = cmd.Wait() // of one that has ended its state says more
	p.state = cmd.ProcessState
	close(p.done)
}

// follow reads the reports of the stage until the command runs, or does not.
func (p *Process) follow(sock int) error {
	for {
		r, file, err := receiveReport(sock)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case file != nil:
			p.Master = file
		case r.Error != "":
			return &Error{r.Code, r.Error}
		case r.PID != 0:
			p.PID = r.PID
		}
	}
}

// Close lets go of the descriptors; the command goes on.
func (p *Process) Close() {
	if p.Master != nil {
		p.Master.Close()
	}
	if p.pidfd != nil {
		p.pidfd.Close()
	}
}

// Done is closed when the command has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait returns the exit code of the command, 128 and the number of the signal if one
// ended it.
func (p *Process) Wait() (int, error) {
	<-p.done
	if p.state == nil {
		return CodeFailed, p.err
	}
	return ExitCode(p.state), nil
}

// ExitCode is the exit code of a process that has ended; 128 and the number of the signal
// that ended it.
func ExitCode(state *os.ProcessState) int {
	status := state.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// Signal sends a signal to the command; one that has ended takes it silently.
func (p *Process) Signal(sig unix.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	err := unix.Kill(p.PID, sig)
	if err == unix.ESRCH {
		return nil
	}
	return err
}
