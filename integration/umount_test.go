package integration

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

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
