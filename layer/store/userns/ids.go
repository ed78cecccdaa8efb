package userns

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
)

// Range is Count ids of the host from Start on.
type Range struct{ Start, Count uint32 }

// Map gives the user namespace of the process pid its ids: the user as root, then the subordinate ids.
func Map(pid int) error {
	uids, err1 := Subordinate("/etc/subuid")
	gids, err2 := Subordinate("/etc/subgid")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	_, err1 = exec.LookPath("newuidmap")
	_, err2 = exec.LookPath("newgidmap")
	if len(uids) == 0 || len(gids) == 0 || err1 != nil || err2 != nil {
		return MapOne(pid)
	}
	if err := runMapper("newuidmap", pid, os.Getuid(), uids); err != nil {
		return err
	}
	return runMapper("newgidmap", pid, os.Getgid(), gids)
}

func runMapper(name string, pid, own int, ranges []Range) error {
	args := []string{strconv.Itoa(pid), "0", strconv.Itoa(own), "1"}
	at := uint32(1)
	for _, r := range ranges {
		args = append(args, fmt.Sprint(at), fmt.Sprint(r.Start), fmt.Sprint(r.Count))
		at += r.Count
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// MapOne maps the user to root, and nobody else; groups cannot be changed then.
func MapOne(pid int) error {
	for _, f := range []struct{ name, text string }{
		{"setgroups", "deny"},
		{"uid_map", fmt.Sprintf("0 %d 1", os.Getuid())},
		{"gid_map", fmt.Sprintf("0 %d 1", os.Getgid())},
	} {
		path := fmt.Sprintf("/proc/%d/%s", pid, f.name)
		if err := os.WriteFile(path, []byte(f.text), 0); err != nil {
			return err
		}
	}
	return nil
}

// OneID reports whether this process is in a user namespace with a single user: nobody has given it
// more.
func OneID() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(b))
	return err == nil && len(f) == 3 && f[2] == "1"
}

// Subordinate returns the ids that file (/etc/subuid or /etc/subgid) gives to the current
// user; none if there is no such file.
func Subordinate(file string) ([]Range, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names := []string{strconv.Itoa(os.Getuid())}
	if u, err := user.Current(); err == nil {
		names = append(names, u.Username)
	}
	return parseRanges(f, names)
}

// parseRanges reads the lines NAME:START:COUNT of the given names (subuid(5)). What is no such
// line is somebody else's business.
func parseRanges(r io.Reader, names []string) ([]Range, error) {
	var out []Range
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(f) != 3 {
			continue
		}
		for _, name := range names {
			if f[0] != name {
				continue
			}
			start, err1 := strconv.ParseUint(f[1], 10, 32)
			count, err2 := strconv.ParseUint(f[2], 10, 32)
			if err1 == nil && err2 == nil && count > 0 && start+count <= 1<<32 {
				out = append(out, Range{uint32(start), uint32(count)})
			}
			break
		}
	}
	return out, lines.Err()
}
