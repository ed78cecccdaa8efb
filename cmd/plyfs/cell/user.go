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

// maxUserFile bounds what is read of a file that an image brings.
const maxUserFile = 16 << 20

// opener opens a file of the view for reading.
type opener func(path string) (*os.File, error)

// inside opens files for a process that has the view as its root.
func inside(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// below opens files of the view that is mounted at root, for a process outside.
func below(root string) opener {
	return func(path string) (*os.File, error) {
		dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: root, Err: err}
		}
		defer unix.Close(dir)
		how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
		fd, err := openat2(dir, path, &how)
		if err != nil {
			return nil, &os.PathError{Op: "open in the view", Path: path, Err: err}
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}

// eachEntry calls f with the fields of every line of a file like /etc/passwd that has
// at least so many. A missing file has no lines. A fifo or device in its place does not hold us up.
func eachEntry(open opener, path string, fields int, f func([]string)) error {
	file, err := open(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if st, err := file.Stat(); err != nil {
		return err
	} else if !st.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", path)
	}
	lines := bufio.NewScanner(io.LimitReader(file, maxUserFile))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if e := strings.Split(strings.TrimSpace(lines.Text()), ":"); len(e) >= fields {
			f(e)
		}
	}
	return lines.Err()
}

// Identity is who a command runs as.
type Identity struct {
	UID, GID uint32
	Groups   []uint32 // further ones
	Home     string
}

// LookUp finds a user, NAME|UID[:GROUP|GID], in the view that is mounted at root.
func LookUp(user, root string) (*Identity, error) { return lookUp(user, below(root)) }

func id(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return uint32(n), err == nil
}

const (
	passwd = "/etc/passwd"
	group  = "/etc/group"
)

// lookUp finds spec, NAME|UID[:GROUP|GID], in the view's passwd and group files, by the rules of
// Docker: what is a number is an id, even where it is somebody's name, and need not be listed;
// without a group it is the user's own, with the further groups that list the user. The
// last fields of a line may be missing.
func lookUp(spec string, open opener) (*Identity, error) {
	who, groupSpec, _ := strings.Cut(spec, ":")
	if who == "" {
		who = "0"
	}
	out := &Identity{Home: "/"}
	number, numeric := id(who)
	found, name := false, ""
	err := eachEntry(open, passwd, 4, func(e []string) {
		uid, ok1 := id(e[2])
		gid, ok2 := id(e[3])
		matches := e[0] == who
		if numeric {
			matches = uid == number
		}
		if found || !ok1 || !ok2 || !matches {
			return
		}
		found, name = true, e[0]
		out.UID, out.GID = uid, gid
		if len(e) > 5 {
			out.Home = e[5]
		}
	})
	switch {
	case err != nil:
		return nil, err
	case !found && !numeric:
		return nil, fmt.Errorf("no user %q in the image's %s", who, passwd)
	case !found:
		out.UID = number
		if number == 0 {
			out.Home = "/root"
		}
	}
	if out.Home == "" {
		out.Home = "/"
	}
	if groupSpec != "" {
		if out.GID, err = lookUpGroup(groupSpec, open); err != nil {
			return nil, err
		}
		return out, nil
	}
	if name == "" {
		return out, nil
	}
	err = eachEntry(open, group, 4, func(e []string) {
		if gid, ok := id(e[2]); ok && slices.Contains(strings.Split(e[3], ","), name) {
			out.Groups = append(out.Groups, gid)
		}
	})
	return out, err
}

func lookUpGroup(spec string, open opener) (uint32, error) {
	number, numeric := id(spec)
	gid, found := number, numeric
	err := eachEntry(open, group, 3, func(e []string) {
		if g, ok := id(e[2]); ok && e[0] == spec && !numeric {
			gid, found = g, true
		}
	})
	if err == nil && !found {
		err = fmt.Errorf("no group %q in the image's %s", spec, group)
	}
	return gid, err
}
