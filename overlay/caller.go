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

// Capable says whether the caller has a capability over the files of this mount: in the user namespace
// of this process, for others' do not count.
func (c *Caller) Capable(capability int) bool {
	if c == nil {
		return true
	}
	dir := c.proc()
	ours, err := os.Readlink("/proc/self/ns/user")
	if err != nil || dir == "" {
		return false
	}
	if its, err := os.Readlink(dir + "/ns/user"); err != nil || its != ours {
		return false
	}
	var set uint64
	c.ask("status", func(key, value string) bool {
		if key == "CapEff" {
			set, _ = strconv.ParseUint(value, 16, 64)
		}
		return key != "CapEff"
	})
	return set&(1<<capability) != 0
}

// KillSetID returns the permissions of a file, which has a mode and a group, without the set-id bits that a change by
// the caller takes away (kernel: setattr_should_drop_suidgid). For a file that its group may not execute the
// set-group-id bit is none, and goes only if the caller is not in the group, and may not set it all the same.
func (c *Caller) KillSetID(mode, gid uint32) uint32 {
	m := mode & 0o7777 &^ unix.S_ISUID
	if m&unix.S_ISGID != 0 && (m&0o010 != 0 || !c.InGroup(gid) && !c.Capable(unix.CAP_FSETID)) {
		m &^= unix.S_ISGID
	}
	return m
}

// Writes says whether the caller has the file with that inode number open for writing, on the filesystem with
// that device number if it is known, and yes where that cannot be told.
func (c *Caller) Writes(dev, ino uint64) bool {
	if c == nil {
		return true
	}
	proc := c.proc()
	if proc == "" {
		return true
	}
	dir, err := os.Open(proc + "/fdinfo")
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
			if _, err := os.Lstat(proc + "/fdinfo/" + name); err == nil {
				return true // a kernel before 5.14, or not for us to read
			}
			continue // closed meanwhile
		}
		if of == ino && flags&unix.O_ACCMODE != unix.O_RDONLY && (dev == 0 || onDevice(proc+"/fd/"+name, dev)) {
			return true
		}
	}
	return false
}

// onDevice says whether an open file is on a device. Its filesystem, which may be the one that waits for the
// answer, is not asked for anything.
func onDevice(path string, dev uint64) bool {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st); err != nil {
		return err != unix.ENOENT
	}
	return unix.Mkdev(st.Dev_major, st.Dev_minor) == dev
}

// proc returns the caller's directory in /proc, "" if there is none: the caller is in no process namespace that
// this process sees, or what is mounted at /proc is of another one, where the number is somebody else's.
func (c *Caller) proc() string {
	if c.PID == 0 {
		return ""
	}
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return ""
	}
	return "/proc/" + strconv.FormatUint(uint64(c.PID), 10)
}

// ask calls f for the lines "key: value" of a file of the caller in /proc, until it returns false.
func (c *Caller) ask(file string, f func(key, value string) bool) {
	dir := c.proc()
	if dir == "" {
		return
	}
	fd, err := os.Open(dir + "/" + file)
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
