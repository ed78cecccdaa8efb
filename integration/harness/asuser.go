package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow/bench/rig"
)

// asUser: this process is an ordinary user's, with no cell around it.
var asUser bool

// scratchVariable hands the scratch directory to the process that runs the tests.
const scratchVariable = "PLYFS_TEST_SCRATCH"

// MainAsUser is [Main] for the tests of what an ordinary user of the machine does. Who is one needs no cell to be so, and
// fusermount3 mounts for nobody in a user namespace: then this process starts the one that runs the tests, and takes away
// what that leaves.
func MainAsUser(m *testing.M) {
	if os.Geteuid() == 0 {
		Main(m)
	}
	if scratch = os.Getenv(scratchVariable); scratch != "" {
		asUser = true
		os.Exit(run(m))
	}
	if why = errors.Join(possible(), canHelp()); why != nil {
		os.Exit(m.Run())
	}
	remove := provide()
	code := outside(m)
	remove()
	os.Exit(code)
}

func outside(m *testing.M) int {
	binary = os.Getenv(binaryVariable)
	unmountDead()
	dir, remove, err := rig.TempDir(userPrefix)
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		return 1
	}
	defer remove()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
	}
	if why = tryOut(dir); why != nil {
		return m.Run()
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), scratchVariable+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		return 1
	}
	go func() {
		for sig := range stop {
			_ = cmd.Process.Signal(sig)
		}
	}()
	code := reap(cmd.Process.Pid, 0)
	Unmount(dir)
	time.AfterFunc(10*time.Second, func() {
		for _, pid := range Processes("") {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	})
	reap(-1, code)
	return code
}

// reap waits for processes, those that lost their parents too, until pid has ended, or with -1 all have. It returns the exit
// code of pid, or code.
func reap(pid, code int) int {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return code
		case got == pid && status.Signaled():
			return 128 + int(status.Signal())
		case got == pid:
			return status.ExitStatus()
		}
	}
}

const userPrefix = "plyfs-user-"

// unmountDead takes away what is mounted in the directories of killed tests.
func unmountDead() {
	locks, _ := filepath.Glob(filepath.Join(os.TempDir(), userPrefix+"*", ".lock"))
	for _, lock := range locks {
		f, err := os.OpenFile(lock, os.O_RDWR|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			Unmount(filepath.Dir(lock))
		}
		f.Close()
	}
}

// tryOut says why fusermount3 does not mount here, whose fault that may be: in a container it has not the rights.
func tryOut(dir string) error {
	mnt := filepath.Join(dir, "try")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return err
	}
	out, err := exec.Command(binary, "mount", "--lower", mnt, mnt).CombinedOutput()
	if text := strings.TrimSpace(string(out)); err != nil && strings.Contains(strings.ToLower(text), "not permitted") {
		return errors.New(text)
	}
	if err == nil {
		_ = exec.Command(binary, "umount", mnt).Run()
	}
	for range 1000 {
		if os.Remove(mnt) == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return nil // or a test will say it
}
