package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/mounts"
	"github.com/plyfs/plyfs/overlay/fusefs"
)

// How long a daemon may take to complete its upper before the mount is just taken away, and then to end.
const (
	unmountPatience = 30 * time.Second
	endPatience     = 5 * time.Second
)

// unmountBelow takes away all mounts below a directory. An error means that one is still there: then
// nothing may be removed, since what is mounted may be somebody's own directory.
func unmountBelow(dir, plyfs string, keep bool) error {
	for range 3 { // one may be on top of another
		table, err := mounts.Below(dir)
		if err != nil {
			return fmt.Errorf("%s is left: %w", dir, err)
		}
		if len(table) == 0 {
			return nil
		}
		for _, m := range slices.Backward(table) {
			if m.Type == mounts.Plyfs {
				endMount(m.Point, plyfs, keep)
			} else {
				_ = fusefs.Detach(m.Point)
			}
		}
	}
	table, err := mounts.Below(dir)
	if err == nil && len(table) > 0 {
		err = fmt.Errorf("%s cannot be unmounted", table[0].Point)
	}
	if err != nil {
		return fmt.Errorf("%s is left: %w", dir, err)
	}
	return nil
}

// endMount unmounts in the ordinary way, which waits for the daemon. If the mount is in use it is taken away all the
// same, and unless what was written there is to be kept its daemon is ended: it would stay for as long as
// somebody's background job.
func endMount(point, plyfs string, keep bool) {
	daemon := openDaemon(point)
	if daemon >= 0 {
		defer unix.Close(daemon)
	}
	ctx, cancel := context.WithTimeout(context.Background(), unmountPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, plyfs, "umount", point)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a further ^C is not for it
	if cmd.Run() == nil {
		return
	}
	_ = fusefs.Detach(point)
	if daemon >= 0 && !keep {
		_ = unix.PidfdSendSignal(daemon, unix.SIGKILL, nil, 0)
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(daemon), Events: unix.POLLIN}}, int(endPatience.Milliseconds()))
	}
}

// openDaemon returns a descriptor of the process that serves a mount, or -1. In another PID namespace its number
// means somebody else, so the program is compared.
func openDaemon(point string) int {
	var st struct {
		Union struct {
			Daemon struct {
				PID int `json:"pid"`
			} `json:"daemon"`
		} `json:"union"`
	}
	if ask(point, fusefs.CtlStat, &st) != nil || st.Union.Daemon.PID <= 0 {
		return -1
	}
	fd, err := unix.PidfdOpen(st.Union.Daemon.PID, 0)
	if err != nil {
		return -1
	}
	theirs, err1 := os.Stat(fmt.Sprintf("/proc/%d/exe", st.Union.Daemon.PID))
	ours, err2 := os.Stat("/proc/self/exe")
	if err1 != nil || err2 != nil || !os.SameFile(theirs, ours) {
		unix.Close(fd)
		return -1
	}
	return fd
}

// ask gets a control attribute of a mount.
func ask(point, attr string, into any) error {
	buf := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(point, attr, buf)
	if err != nil {
		return err
	}
	answer, err := fusefs.Unpack(buf[:n])
	if err != nil {
		return err
	}
	return json.Unmarshal(answer, into)
}
