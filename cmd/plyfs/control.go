package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay/fusefs"
)

// A live mount is asked through extended attributes that every file of it answers; see
// overlay/fusefs/control.go for the other end.

// ask gets a control attribute of path, which is not followed if it is a symlink.
func ask(path, attr string, into any) error {
	buf := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(path, attr, buf)
	for err == unix.EINTR {
		n, err = unix.Lgetxattr(path, attr, buf)
	}
	if err != nil {
		return controlError(path, err)
	}
	answer, err := fusefs.Unpack(buf[:n])
	if err == nil {
		err = json.Unmarshal(answer, into)
	}
	if err != nil {
		return fmt.Errorf("%s: the daemon's answer to %s: %w", path, attr, err)
	}
	return nil
}

var errNoMount = errors.New("not in a plyfs mount")

func controlError(path string, err error) error {
	switch err {
	case unix.ENODATA, unix.EOPNOTSUPP:
		return fmt.Errorf("%s: %w", path, errNoMount)
	case unix.EPERM:
		return fmt.Errorf("%s: only root and the owner of the mount may ask that", path)
	case unix.ENOTCONN, unix.ECONNABORTED: // aborted: it died while it was asked
		return fmt.Errorf("%s: %w; plyfs umount takes the mount point away", path, fusefs.ErrDead)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// mountStat is plyfs.stat as this command fills it.
type mountStat struct {
	fusefs.Stat
	Union struct {
		Daemon about           `json:"daemon"`
		Core   json.RawMessage `json:"core"`
	} `json:"union"`
}

// plyfsMounts returns the mount points of plyfs, as this process sees them, in the
// order of mounting.
func plyfsMounts() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var points []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		if !ok || !strings.HasPrefix(after, "fuse.plyfs ") {
			continue
		}
		if fields := strings.Fields(before); len(fields) > 4 {
			points = append(points, unoctal(fields[4]))
		}
	}
	return points, lines.Err()
}

// unoctal undoes what the kernel does to blanks, line breaks and backslashes.
func unoctal(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
