package integration

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// TestRemountFlags: what mount -o remount says is done to a live mount, and nothing else of it.
func TestRemountFlags(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "f a 1")
	m := l.Plyfs(t, "-o", "nosuid")
	flags := func() string {
		table, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(table)) {
			if f := strings.Fields(line); f[4] == m.Dir {
				return f[5]
			}
		}
		return "not mounted"
	}
	write := func() error { return os.WriteFile(m.Path("new"), nil, 0o644) }
	// As mount(8) and its helper say it.
	plyfs(t, "plyfs", m.Dir, "-o", "ro,relatime,remount,user_id=0,group_id=0,default_permissions,allow_other,max_read=1048576,dev")
	if got := flags(); got != "ro,nosuid,relatime" {
		t.Errorf("flags %s", got)
	}
	if err := write(); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to what is read-only: %v", err)
	}
	plyfs(t, "-o", "remount,rw,noexec,lowerdir=/nowhere", m.Dir)
	if got := flags(); got != "rw,nosuid,noexec,relatime" {
		t.Errorf("flags %s", got)
	}
	if err := write(); err != nil {
		t.Error(err)
	}
	for _, word := range []string{"relatime", "atime"} {
		plyfs(t, "-o", "remount,noatime", m.Dir)
		if got := flags(); got != "rw,nosuid,noexec,noatime" {
			t.Errorf("flags %s", got)
		}
		plyfs(t, "-o", "remount,"+word, m.Dir)
		if got := flags(); got != "rw,nosuid,noexec,relatime" {
			t.Errorf("remount,%s: flags %s", word, got)
		}
	}
	fd, err := unix.Open(m.Path("new"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(want, options, dir string) {
		t.Helper()
		if out, err := harness.Run("-o", options, dir); harness.ExitCode(err) != 1 || out != "plyfs: "+dir+": "+want+"\n" {
			t.Errorf("%s: %v, %q", options, err, out)
		}
	}
	refused("in use: files are open for writing", "remount,ro", m.Dir)
	unix.Close(fd)
	refused("no plyfs is mounted there", "remount,ro", l.Root)
	m.Close(t)

	m = l.Plyfs(t, "-o", "ro")
	plyfs(t, "-o", "remount,rw", m.Dir)
	if err := write(); err != nil {
		t.Errorf("write to what was read-only: %v", err)
	}
	m.Close(t)
	l.Upper, l.Work = "", ""
	m = l.Plyfs(t)
	refused("the mount has no upper, and stays read-only", "remount,rw", m.Dir)
}
