package image

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// strangers are owners that our user namespace has no id for: the kernel shows all of them as one, nobody. A directory
// that root made is full of them when an ordinary user loads it, and would be nobody's in every container.
type strangers struct {
	uid, gid uint32 // that the kernel shows
	met      int
}

// newStrangers returns nil where there are none: in the first user namespace.
func newStrangers() *strangers {
	if all, _ := layer.InitialUsers(); all {
		return nil
	}
	return &strangers{uid: shownID("overflowuid"), gid: shownID("overflowgid")}
}

// shownID reads /proc/sys/kernel/overflowuid or overflowgid.
func shownID(file string) uint32 {
	b, err := os.ReadFile("/proc/sys/kernel/" + file)
	if n, e := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32); err == nil && e == nil {
		return uint32(n)
	}
	return 65534
}

// owner returns who owns an object in the archive: root in place of a stranger.
func (s *strangers) owner(fd int, name string, st *unix.Statx_t) (uid, gid uint32) {
	if uid, gid = st.Uid, st.Gid; uid != s.uid || s.known(fd, name, uint32(st.Mode)&unix.S_IFMT) {
		return uid, gid
	}
	s.met++
	if gid == s.gid {
		gid = 0
	}
	return 0, gid
}

// known tells an owner with the id that strangers are shown with from a stranger: who may have O_NOATIME of a file, its owner
// and root, must be of a namespace that has the owner (inode_owner_or_capable in fs/inode.c). What cannot be opened is
// a stranger's.
func (s *strangers) known(dir int, name string, kind uint32) bool {
	if kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return false
	}
	if name == "" {
		name = "."
	}
	fd, err := layer.Open(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// note says what was done, "" if nothing was.
func (s *strangers) note() string {
	if s == nil || s.met == 0 {
		return ""
	}
	return fmt.Sprintf("%d files and directories are of owners that you have no ids for, and are root's in the image: tar -C DIRECTORY -c . | plyfs image load - keeps the numbers", s.met)
}
