package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

const fusermountName = "fusermount3"

var errNoHelper = fmt.Errorf("%w: fusermount3 is not installed (package fuse3)", ErrNotPermitted)

// fusermount mounts through the set-uid helper of libfuse: it opens the device,
// mounts, and sends the descriptor over a socket whose number it finds in
// _FUSE_COMMFD (fusermount3(1), util/fusermount.c of libfuse).
func fusermount(path string, o *Options) (int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socketpair", err)
	}
	ours := pair[0]
	theirs := os.NewFile(uintptr(pair[1]), "fusermount")
	defer unix.Close(ours)
	cmd := exec.Command(fusermountName, "-o", o.helperOptions(), "--", path)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{theirs}
	if err := runHelper(cmd, path); err != nil {
		theirs.Close()
		return -1, err
	}
	theirs.Close()
	fd, err := receiveFD(ours)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", path, err)
	}
	return fd, nil
}

func runHelper(cmd *exec.Cmd, path string) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if _, ok := err.(*exec.Error); ok {
		return fmt.Errorf("mount %s: %w", path, errNoHelper)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(out.String()), "\n")
	if line == "" {
		line = "fusermount3: " + err.Error()
	}
	return fmt.Errorf("mount %s: %w: %s", path, ErrNotPermitted, line)
}

// helperOptions are kernelOptions in fusermount3's words.
func (o *Options) helperOptions() string {
	_, data := o.kernelOptions()
	opts := []string{data, "subtype=" + subtype, "fsname=" + escapeOption(o.Source)}
	for _, f := range []struct {
		on   bool
		name string
	}{
		{o.ReadOnly, "ro"},
		{o.NoSuid, "nosuid"},
		{o.NoDev, "nodev"},
		{o.NoExec, "noexec"},
		{o.NoAtime, "noatime"},
	} {
		if f.on {
			opts = append(opts, f.name)
		}
	}
	return strings.Join(opts, ",")
}

func escapeOption(s string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(s)
}

// receiveFD takes the one descriptor a SCM_RIGHTS message carries.
func receiveFD(sock int) (int, error) {
	buf := make([]byte, 8)
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(sock, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("recvmsg", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err == nil && len(msgs) == 1 {
		var fds []int
		if fds, err = unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	if err == nil {
		err = errors.New("it sent no descriptor")
	}
	return -1, fmt.Errorf("%w: fusermount3: %w", ErrNotPermitted, err)
}

func fusermountUnmount(path string, lazy bool) error {
	args := []string{"-u", "--", path}
	if lazy {
		args = []string{"-u", "-z", "--", path}
	}
	out, err := exec.Command(fusermountName, args...).CombinedOutput()
	if err == nil {
		return nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("unmount %s: %w", path, errNoHelper)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if line == "" {
		line = err.Error()
	}
	if strings.Contains(strings.ToLower(line), "busy") {
		return &os.PathError{Op: "unmount", Path: path, Err: unix.EBUSY}
	}
	return fmt.Errorf("unmount %s: not permitted: it takes root, or whoever mounted it (%s)", path, line)
}
