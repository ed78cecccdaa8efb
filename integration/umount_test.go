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

// A directory that is removed takes along what other mount namespaces have mounted there. A mount of plyfs inside of that, whose
// layers are there too, is kept by its own daemon: that ends with the second signal.
func TestSignalsForAMountAway(t *testing.T) {
	harness.NeedRoot(t)
	dir := harness.Dir(t) + "/disk"
	do(t, os.Mkdir(dir, 0o755))
	script := `mount -t tmpfs none "$1" && cd "$1" && mkdir low up work mnt && exec "$2" mount -f --lower low --upper up --work work mnt`
	daemon := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", dir, harness.Binary())
	do(t, daemon.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = daemon.Wait()
	}()
	defer func() {
		_ = daemon.Process.Kill()
		<-ended
	}()
	waitFor(t, "the mount", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", daemon.Process.Pid))
		return strings.Contains(string(b), dir+"/mnt ")
	})
	do(t, os.Remove(dir))
	do(t, daemon.Process.Signal(unix.SIGTERM))
	time.Sleep(1500 * time.Millisecond)
	_ = daemon.Process.Signal(unix.SIGTERM)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the daemon goes on")
	}
}
