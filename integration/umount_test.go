package integration

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// A mount that is in use for a moment only, as by plyfs watch, is no reason to give up.
func TestUmountWaitsForAMoment(t *testing.T) {
	m := harness.NewLayers(t, "f file hello").Plyfs(t)
	f, err := os.Open(m.Path("file"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	asked, ours := m.Stat(t).Control, uint64(0)
	go func() {
		out, err := harness.Run("umount", m.Dir)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		done <- err
	}()
	// It asks for the daemon's state, and to have files completed, before it unmounts.
	waitFor(t, "umount to begin", func() bool {
		ours++
		return m.Stat(t).Control > asked+ours+1
	})
	time.Sleep(50 * time.Millisecond)
	f.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A container started while the mount was there has a copy of it in its own mount
// namespace, and keeps the daemon alive: umount says so instead of waiting for it.
func TestUmountWithCopyInOtherNamespace(t *testing.T) {
	m := harness.NewLayers(t, "f file hello").Plyfs(t)
	other := exec.Command("sleep", "100")
	other.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	out, err := harness.Run("umount", m.Dir)
	_ = other.Process.Kill()
	_ = other.Wait()
	if err != nil || !strings.Contains(out, "another mount namespace") {
		t.Errorf("%v: %s", err, out)
	}
}
