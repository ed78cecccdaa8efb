package harness

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Account is an ordinary user with subordinate ids and a home, as useradd makes one.
type Account struct {
	Name string
	ID   uint32 // user and group
	Home string
}

// NewAccount makes an ordinary user, who goes with the test. It is skipped where newuidmap is missing.
func NewAccount(t testing.TB) *Account {
	t.Helper()
	NeedUser(t)
	NeedTool(t, "newuidmap")
	sweepAccounts()
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	a := &Account{Name: accountPrefix + hex.EncodeToString(random[:]), Home: Dir(t)}
	if out, err := exec.Command("useradd", "--no-log-init", "--home-dir", a.Home, "--no-create-home", "--user-group", a.Name).CombinedOutput(); err != nil {
		t.Fatalf("useradd: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("userdel", "--force", a.Name).CombinedOutput(); err != nil {
			t.Errorf("userdel: %v\n%s", err, out)
		}
	})
	u, err := user.Lookup(a.Name)
	if err != nil {
		t.Fatal(err)
	}
	id, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	a.ID = uint32(id)
	if err := os.Mkdir(a.Home+"/run", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{a.Home, a.Home + "/run"} {
		if err := os.Chown(dir, int(a.ID), int(a.ID)); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

const accountPrefix = "plyfs-"

// sweepAccounts removes the users of tests that were killed: their homes went with the scratch directory.
func sweepAccounts() {
	b, _ := os.ReadFile("/etc/passwd")
	for line := range strings.Lines(string(b)) {
		f := strings.Split(line, ":")
		if len(f) < 6 || !strings.HasPrefix(f[0], accountPrefix) {
			continue
		}
		if _, err := os.Lstat(f[5]); errors.Is(err, os.ErrNotExist) {
			_ = exec.Command("userdel", "--force", f[0]).Run()
		}
	}
}

// Command returns a command that the user runs at home.
func (a *Account) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = a.Home
	cmd.Env = append(os.Environ(), "HOME="+a.Home, "USER="+a.Name, "LOGNAME="+a.Name, "TMPDIR="+a.Home, "XDG_RUNTIME_DIR="+a.Home+"/run")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.ID, Gid: a.ID}}
	return cmd
}

// NeedTool skips the test where a program is not installed.
func NeedTool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip(err)
	}
}
