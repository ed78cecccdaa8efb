package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/layer/store/userns"
)

const (
	// stageVariable tells a copy of this program which part it plays: "init" or "inner", or "remove", which empties
	// the scratch directory; "wait" before "init" or "remove" for that part when the ids of its user
	// namespace are there; unset in the outer process.
	stageVariable = "PLYFS_BENCH_STAGE"
	// scratchVariable names the scratch directory to the inner process.
	scratchVariable = "PLYFS_BENCH_SCRATCH"
	scratchPrefix   = "plyfs-bench-"
	lockName        = ".lock"
)

// Cell is the closed environment of the inner process.
type Cell struct {
	// Scratch is an empty directory that is removed when the cell ends.
	Scratch string
	// Root says whether the outer process is privileged: loop images and
	// dropping caches work.
	Root bool
}

// CellOptions are the conditions of a [Cell].
type CellOptions struct {
	// Dir is where the scratch directory is made; empty for os.TempDir.
	Dir string
	// CPU is the only processor to run on, with everything started
	// inside; below zero for all.
	CPU int
	// Preempt leaves the runtime's interruptions on, see [Enter].
	Preempt bool
}

// Enter runs the program in a cell. In the inner process it returns the
// cell; in the others, which have nothing else to do, nil and the inner process's exit code.
//
// The Go runtime interrupts threads that stay long in one system call, and
// kernel overlayfs then starts a copy-up anew: in the inner process that is off.
func Enter(o CellOptions) (*Cell, int, error) {
	switch stage := os.Getenv(stageVariable); stage {
	case stageWait + "init", stageWait + "remove":
		waitForMaps(stage[len(stageWait):])
	case "remove":
		_ = os.RemoveAll(os.Getenv(scratchVariable))
		os.Exit(0)
	case "init":
		code, err := runInit()
		return nil, code, err
	case "inner":
		c := &Cell{Scratch: os.Getenv(scratchVariable), Root: initialUser()}
		os.Unsetenv(stageVariable)
		os.Unsetenv(scratchVariable)
		return c, 0, nil
	}
	code, err := runOuter(o)
	return nil, code, err
}

func runOuter(o CellOptions) (code int, err error) {
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return 1, err
	}
	scratch, unlock, err := makeScratch(dir, scratchPrefix)
	if err != nil {
		return 1, fmt.Errorf("scratch directory: %w", err)
	}
	defer unlock()
	defer func() {
		if e := remove(scratch); e != nil && err == nil {
			code, err = 1, fmt.Errorf("scratch directory: %w", e)
		}
	}()
	// The parent-death signal follows the thread that forked, and so does
	// the processor: both want this thread to stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	env := append(os.Environ(), scratchVariable+"="+scratch)
	if !o.Preempt {
		env = append(env, "GODEBUG="+withDebug(os.Getenv("GODEBUG"), "asyncpreemptoff=1"))
	}
	var cmd *exec.Cmd
	var refused error
	start := func() error {
		prepare := func() {
			cmd = self("init", env)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL}
		}
		prepare()
		if os.Geteuid() == 0 {
			refused = cmd.Start()
			return refused
		}
		if refused = startMapped(cmd, "init", env, userns.Map); refused != nil {
			prepare()
			refused = startMapped(cmd, "init", env, userns.MapOne)
		}
		return refused
	}
	if o.CPU >= 0 {
		err = OnCPU(o.CPU, start)
	} else {
		err = start()
	}
	if err != nil && refused == nil {
		return 1, err
	}
	if err != nil {
		return 1, fmt.Errorf("no namespaces to run in (need root, or user namespaces): %w", err)
	}
	defer forwardSignals(cmd.Process)()
	return exitCode(cmd.Wait())
}

// runInit is process 1 of the cell.
func runInit() (int, error) {
	if !initialUser() {
		userns.Settle()
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return 1, fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return 1, fmt.Errorf("mount /proc: %w", err)
	}
	cmd := self("inner", os.Environ())
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	defer forwardSignals(cmd.Process)()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 1, fmt.Errorf("wait: %w", err)
		case pid == cmd.Process.Pid && status.Exited():
			return status.ExitStatus(), nil
		case pid == cmd.Process.Pid && status.Signaled():
			return 128 + int(status.Signal()), nil
		}
	}
}

func self(stage string, env []string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		exe = "/proc/self/exe"
	}
	cmd := exec.Command(exe)
	cmd.Args = os.Args
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(env, stageVariable+"="+stage)
	return cmd
}

// forwardSignals hands the signals that mean "stop" to p and keeps them from
// ending this process before p. The function it returns undoes that.
func forwardSignals(p *os.Process) func() {
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		for s := range ch {
			p.Signal(s)
		}
	}()
	return func() {
		signal.Stop(ch)
		close(ch)
	}
}

func exitCode(err error) (int, error) {
	var e *exec.ExitError
	if !errors.As(err, &e) {
		if err != nil {
			return 1, err
		}
		return 0, nil
	}
	if c := e.ExitCode(); c >= 0 {
		return c, nil
	}
	return 1, errors.New("the benchmark was killed")
}

// withDebug adds one setting to a GODEBUG value.
func withDebug(old, setting string) string {
	if old == "" {
		return setting
	}
	return old + "," + setting
}

// initialUser reports whether root here is root everywhere.
func initialUser() bool {
	all, _ := layer.InitialUsers()
	return all && os.Geteuid() == 0
}

// TempDir makes a directory whose name begins with the prefix. The function it returns removes it; if this process is killed
// before, the next one that makes one removes it.
func TempDir(prefix string) (path string, done func(), err error) {
	path, unlock, err := makeScratch(os.TempDir(), prefix)
	return path, func() { _ = remove(path); unlock() }, err
}

// makeScratch makes a scratch directory that is locked while this process lives, and removes those of the dead.
func makeScratch(dir, prefix string) (path string, unlock func(), err error) {
	sweep(dir, prefix)
	if path, err = os.MkdirTemp(dir, prefix+"*"); err != nil {
		return "", nil, err
	}
	f, err := os.Create(filepath.Join(path, lockName))
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		os.RemoveAll(path)
		return "", nil, err
	}
	return path, func() { f.Close() }, nil
}

// sweep removes the scratch directories whose owners are dead.
func sweep(dir, prefix string) {
	found, _ := filepath.Glob(filepath.Join(dir, prefix+"*", lockName))
	for _, lock := range found {
		f, err := os.OpenFile(lock, os.O_RDWR|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = remove(filepath.Dir(lock))
		}
		f.Close()
	}
}

// CPUs returns the processors that this process may run on.
func CPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("processor affinity: %w", err)
	}
	var out []int
	for cpu := range 8 * int(unsafe.Sizeof(set)) {
		if set.IsSet(cpu) {
			out = append(out, cpu)
		}
	}
	return out, nil
}

// OnCPU calls f on a thread that may run on one processor only. Processes
// that f starts inherit that.
func OnCPU(cpu int, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return fmt.Errorf("processor affinity: %w", err)
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("processor %s: %w", strconv.Itoa(cpu), err)
	}
	defer unix.SchedSetaffinity(0, &old)
	return f()
}
