package overlay

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What the protocol does not tell of a caller is asked of /proc, in the few cases that depend on it.

// InGroup says whether the caller is in a group, by its filesystem id or a supplementary one. Of whom nothing
// is known it says no.
func (c *Caller) InGroup(gid uint32) bool {
	if c == nil || c.GID == gid {
		return true
	}
	found := false
	c.ask("status", func(key, value string) bool {
		if key != "Groups" {
			return true
		}
		for _, s := range strings.Fields(value) {
			if g, err := strconv.ParseUint(s, 10, 32); err == nil && uint32(g) == gid {
				found = true
			}
		}
		return false
	})
	return found
}

// Writes says whether the caller has a file with that inode number open for writing, and yes where that
// cannot be told.
func (c *Caller) Writes(ino uint64) bool {
	if c == nil || c.PID == 0 {
		return true
	}
	dir, err := os.Open("/proc/" + strconv.FormatUint(uint64(c.PID), 10) + "/fdinfo")
	if err != nil {
		return true
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return true
	}
	for _, name := range names {
		var flags, of uint64
		told := false
		c.ask("fdinfo/"+name, func(key, value string) bool {
			switch key {
			case "flags":
				flags, _ = strconv.ParseUint(value, 8, 64)
			case "ino":
				of, err = strconv.ParseUint(value, 10, 64)
				told = err == nil
			}
			return !told
		})
		if !told {
			if _, err := os.Lstat("/proc/" + strconv.FormatUint(uint64(c.PID), 10) + "/fdinfo/" + name); err == nil {
				return true // a kernel before 5.14, or not for us to read
			}
			continue // closed meanwhile
		}
		if of == ino && flags&unix.O_ACCMODE != unix.O_RDONLY {
			return true
		}
	}
	return false
}

// ask calls f for the lines "key: value" of a file of the caller in /proc, until it returns false.
func (c *Caller) ask(file string, f func(key, value string) bool) {
	if c.PID == 0 {
		return
	}
	fd, err := os.Open("/proc/" + strconv.FormatUint(uint64(c.PID), 10) + "/" + file)
	if err != nil {
		return
	}
	defer fd.Close()
	lines := bufio.NewScanner(fd)
	lines.Buffer(nil, 1<<20) // of 65536 groups
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if !f(key, strings.TrimSpace(value)) {
			return
		}
	}
}
