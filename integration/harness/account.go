package harness

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"os/user"
	"strconv"
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
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	a := &Account{Name: "plyfs-" + hex.EncodeToString(random[:]), Home: Dir(t)}
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
