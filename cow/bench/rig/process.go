package rig

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// processesNaming returns the processes that have arg, whole, among their arguments.
func processesNaming(arg string) []int {
	var pids []int
	found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range found {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		b, _ := os.ReadFile(path)
		for _, a := range bytes.Split(b, []byte{0}) {
			if string(a) == arg && alive(pid) {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// alive reports whether a process runs; one that only waits to be reaped does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest != "" && rest[0] != 'Z' && rest[0] != 'X'
}

// Memory returns the resident memory of the mount's daemon in bytes; 0 without one.
func (m *Mount) Memory() int64 {
	var sum int64
	for _, pid := range m.daemons {
		sum += field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:") << 10
	}
	return sum
}

// Dirtied returns how many bytes of pages the mount's daemon and this
// process have dirtied on filesystems that write pages back, metadata
// included. That is where copied data shows for every kind of union: the kernel's copies in its caller, others in their daemon.
func (m *Mount) Dirtied() int64 {
	sum := Dirtied()
	for _, pid := range m.daemons {
		sum += field(fmt.Sprintf("/proc/%d/io", pid), "write_bytes:")
	}
	return sum
}

// Dirtied is the same of this process, and of its children that have ended.
func Dirtied() int64 { return field("/proc/self/io", "write_bytes:") }

// field reads the number that follows key in a file of "key number" lines.
func field(path, key string) int64 {
	b, _ := os.ReadFile(path)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == key {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}

// Space returns the bytes that the files below dir occupy, and how many files there are. Extents shared by reflink count in full.
func Space(dir string) (bytes int64, files int) {
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			bytes += st.Blocks * 512
			files++
		}
		return nil
	})
	return bytes, files
}
