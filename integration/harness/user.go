package harness

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// UserID is the user and group of tests as an ordinary user: "nobody", since fusermount3
// wants its caller to have a name.
const UserID = 65534

// NeedUser skips the test where no ordinary user can mount through fusermount3. For the
// tests of this process /dev/fuse is open to everybody, as distributions have it; the
// machine's own is left alone.
func NeedUser(t testing.TB) {
	t.Helper()
	if asUser {
		return // this process is one
	}
	NeedRoot(t)
	if err := openToUsers(); err != nil {
		if os.Getenv("PLYFS_REQUIRE_MOUNT") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

var openToUsers = sync.OnceValue(func() error {
	if err := canHelp(); err != nil {
		return err
	}
	// What was made for root alone on the way to the binary and to the scratch directory.
	for _, dir := range []string{scratch, filepath.Dir(binary)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	dev := filepath.Join(scratch, "dev")
	if err := os.Mkdir(dev, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("dev", dev, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	node := filepath.Join(dev, "fuse")
	if err := unix.Mknod(node, unix.S_IFCHR, int(unix.Mkdev(10, 229))); err != nil {
		return err
	}
	if err := unix.Chmod(node, 0o666); err != nil {
		return err
	}
	return unix.Mount(node, "/dev/fuse", "", unix.MS_BIND, "")
})

// canHelp says why fusermount3 does not mount for an ordinary user.
func canHelp() error {
	helper, err := exec.LookPath("fusermount3")
	if err != nil {
		return err
	}
	if st, err := os.Stat(helper); err != nil || st.Mode()&os.ModeSetuid == 0 {
		return errors.New("fusermount3 is not set-uid root")
	}
	return nil
}

// UserLayers is NewLayers for an ordinary user, who owns all of it.
func UserLayers(t testing.TB, lowers ...string) *Layers {
	t.Helper()
	NeedUser(t)
	l := NewLayers(t, lowers...)
	GiveToUser(t, l.Root)
	return l
}

// GiveToUser makes the ordinary user the owner of dir and of all below it.
func GiveToUser(t testing.TB, dir string) {
	t.Helper()
	if asUser {
		return // who has made it
	}
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, UserID, UserID)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// AsUser returns a command that an ordinary user runs, in the directory dir.
func AsUser(dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if asUser {
		return cmd
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: UserID, Gid: UserID}}
	return cmd
}

// Processes returns the daemons that serve dir, or with "" all processes of the plyfs under test, found by their command
// line: those of other users too, whose mounts cannot be asked.
func Processes(dir string) (pids []int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(b, []byte(dir+"\x00")) || !bytes.HasPrefix(b, []byte(binary+"\x00")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && Alive(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}
