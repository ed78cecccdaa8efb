package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/mounts"
)

// copies are the mounts that keep a filesystem alive when it is unmounted at one place: in other mount namespaces, as a rule.
// They are found by the number of its device, which is given to the next filesystem as soon as it is free; so they are
// noted while it is not.
type copies struct {
	point, device string
	seen          map[string]bool    // namespaces looked at
	had           map[copyPlace]bool // where it was besides
}

// copyPlace is one place of a mount.
type copyPlace struct{ namespace, id, point string }

// findCopies notes where else the mount at a path is. It is to be called before the unmount.
func findCopies(path string) *copies {
	c := &copies{point: path, seen: map[string]bool{}, had: map[copyPlace]bool{}}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return c
	}
	c.device = fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	own, _ := os.Readlink("/proc/self/ns/mnt")
	forEachNamespace(func(ns, _ string, table []mounts.Mount) bool {
		c.note(ns, ns == own, table)
		return true
	})
	return c
}

func (c *copies) note(ns string, own bool, table []mounts.Mount) {
	c.seen[ns] = true
	for _, m := range table {
		if c.is(m) && !(own && m.Point == c.point) {
			c.had[copyPlace{ns, m.ID, m.Point}] = true
		}
	}
}

func (c *copies) is(m mounts.Mount) bool { return m.Device == c.device && m.Type == mounts.Plyfs }

// stays says that a namespace still has the mount. One that was made after findCopies has it where it was.
func (c *copies) stays(ns string, table []mounts.Mount) bool {
	for _, m := range table {
		if c.is(m) && (c.had[copyPlace{ns, m.ID, m.Point}] || !c.seen[ns] && m.Point == c.point) {
			return true
		}
	}
	return false
}

// left names a process that still has the mount, "" if there is none, as far as we may look.
func (c *copies) left() (who string) {
	forEachNamespace(func(ns, proc string, table []mounts.Mount) bool {
		if !c.stays(ns, table) {
			return true
		}
		name, _ := os.ReadFile(proc + "/comm")
		who = fmt.Sprintf("%s, process %s", strings.TrimSpace(string(name)), filepath.Base(proc))
		return false
	})
	return who
}

// forEachNamespace calls f with the mounts of each mount namespace, as one of its processes sees them, while it
// returns true.
func forEachNamespace(f func(ns, proc string, table []mounts.Mount) bool) {
	seen := map[string]bool{}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		ns, err := os.Readlink(proc + "/ns/mnt")
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		if table, err := mounts.TableOf(proc); err == nil && !f(ns, proc, table) {
			return
		}
	}
}
