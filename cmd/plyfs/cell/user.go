package cell

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// identity is who a command runs as.
type identity struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// maxUserFile bounds what is read of a file that an image brings.
const maxUserFile = 16 << 20

// openRegular opens a file of the view; a fifo or device in its place must not hold us up.
func openRegular(path string) (io.ReadCloser, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, maxUserFile), f}, nil
}

// eachEntry calls f with the fields of every line of a file like /etc/passwd. A
// missing file has no lines.
func eachEntry(path string, fields int, f func([]string)) error {
	file, err := openRegular(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if e := strings.Split(lines.Text(), ":"); len(e) >= fields {
			f(e)
		}
	}
	return lines.Err()
}

func id(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return uint32(n), err == nil
}

// lookUp finds spec, NAME|UID[:GROUP|GID], in the given passwd and group files, by the rules of Docker: a
// number need not be listed; without a group it is the user's own, with the further
// groups that list the user.
func lookUp(spec, passwd, group string) (*identity, error) {
	who, groupSpec, hasGroup := strings.Cut(spec, ":")
	if who == "" {
		who = "0"
	}
	out := &identity{home: "/"}
	number, numeric := id(who)
	found, name := false, ""
	err := eachEntry(passwd, 6, func(e []string) {
		uid, ok1 := id(e[2])
		gid, ok2 := id(e[3])
		if found || !ok1 || !ok2 || e[0] != who && !(numeric && uid == number) {
			return
		}
		found, name = true, e[0]
		out.uid, out.gid, out.home = uid, gid, e[5]
	})
	switch {
	case err != nil:
		return nil, err
	case !found && !numeric:
		return nil, fmt.Errorf("no user %q in the image's %s", who, passwd)
	case !found:
		out.uid = number
		if number == 0 {
			out.home = "/root"
		}
	}
	if out.home == "" {
		out.home = "/"
	}
	if hasGroup {
		if out.gid, err = lookUpGroup(groupSpec, group); err != nil {
			return nil, err
		}
		return out, nil
	}
	if name == "" {
		return out, nil
	}
	err = eachEntry(group, 4, func(e []string) {
		if gid, ok := id(e[2]); ok && slices.Contains(strings.Split(e[3], ","), name) {
			out.groups = append(out.groups, gid)
		}
	})
	return out, err
}

func lookUpGroup(spec, group string) (uint32, error) {
	number, numeric := id(spec)
	gid, found := number, numeric
	err := eachEntry(group, 3, func(e []string) {
		if g, ok := id(e[2]); ok && e[0] == spec && !numeric {
			gid, found = g, true
		}
	})
	if err == nil && !found {
		err = fmt.Errorf("no group %q in the image's %s", spec, group)
	}
	return gid, err
}
