// Package userns lets an ordinary user keep a store: the command runs again as root of a user
// namespace, in which the files of images can belong to more than one user. It has a mount
// namespace too: what it mounts goes with it.
//
// The ids are those of /etc/subuid and /etc/subgid, given out by newuidmap and
// newgidmap (package uidmap). Without them there is one id: everything in the
// store belongs to the user, and is shown as root's.
package userns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer/store/self"
)

// stageVariable tells a copy of this program where it is: "wait" before the ids are
// mapped, "inside" afterwards.
const stageVariable = "PLYFS_USERNS"

// parentVariable is the process id of who waits outside, for the second half of the inner process.
const parentVariable = "PLYFS_USERNS_PARENT"

const (
	stageWait   = "wait"
	stageInside = "inside"
)

// mapsFD is the descriptor on which the waiting stage learns that its ids are mapped.
const mapsFD = 3

// Rootless reports whether this process works for an ordinary user: it is one, or [Enter]
// made it root of a namespace.
func Rootless() bool {
	return os.Geteuid() != 0 || os.Getenv(stageVariable) == stageInside
}

// Init is the first thing a program has to do that calls Enter. In the process that Enter starts it waits for the ids, and
// returns in its second half only: before that nothing can be known, not even who we are.
func Init() error {
	if os.Getenv(stageVariable) == stageWait {
		return waitForMaps()
	}
	return nil
}

// Enter returns at once for root. For anybody else it runs this program again, with the same
// arguments and descriptors, as root of a user namespace, and exits with its exit code; in
// that second process it returns.
func Enter() error {
	switch stage := os.Getenv(stageVariable); {
	case os.Geteuid() == 0:
		if stage == stageInside {
			Settle()
			orphaned()
		}
		return nil
	case stage == stageInside:
		return errors.New("the user namespace has no root")
	}
	code, err := outside()
	if err != nil {
		return fmt.Errorf("no user namespace to work in: %w", err)
	}
	os.Exit(code)
	return nil
}

// Settle undoes what an exec does that gives more capabilities than there were before, as the one that follows [Map] does:
// it made us undumpable, and /proc/self not ours, and nobody's death is ours any more.
func Settle() {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
}

// orphaned ends this process if who waits outside was killed before [Settle] could make that death ours: nobody would know
// that the command goes on.
func orphaned() {
	if v, ok := os.LookupEnv(parentVariable); ok {
		os.Unsetenv(parentVariable)
		if v != strconv.Itoa(os.Getppid()) {
			os.Exit(128 + int(unix.SIGKILL))
		}
	}
}

// outside starts the inner process, maps its ids, and waits for it.
func outside() (int, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer write.Close()
	cmd := exec.Command(self.Program())
	cmd.Args = os.Args
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{read}
	cmd.Env = append(os.Environ(), stageVariable+"="+stageWait)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	// The parent-death signal comes when this thread ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Start()
	read.Close()
	if err != nil {
		return 0, fmt.Errorf("%w (user namespaces may be switched off: user.max_user_namespaces)", err)
	}
	defer forwardSignals(cmd.Process)()
	if err := Map(cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return 0, err
	}
	_, _ = write.Write([]byte{1}) // or it ended already: its exit code says more
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// waitForMaps is the first half of the inner process. It has an id now, but no
// capability: those come with the exec.
func waitForMaps() error {
	pipe := os.NewFile(mapsFD, "maps")
	if n, err := pipe.Read(make([]byte, 1)); n != 1 {
		return fmt.Errorf("waiting for a user namespace: %w", err)
	}
	pipe.Close()
	os.Setenv(stageVariable, stageInside)
	os.Setenv(parentVariable, strconv.Itoa(os.Getppid())) // alive, or we would not be: its death is ours until the exec
	err := unix.Exec(self.Program(), os.Args, os.Environ())
	return fmt.Errorf("exec in the user namespace: %w", err)
}
