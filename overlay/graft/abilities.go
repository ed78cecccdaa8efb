package graft

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// fsNames are the filesystems people bind most, by statfs(2)'s f_type.
var fsNames = map[int64]string{
	unix.BTRFS_SUPER_MAGIC: "btrfs", unix.CEPH_SUPER_MAGIC: "ceph", unix.CIFS_SUPER_MAGIC: "cifs", unix.EXT4_SUPER_MAGIC: "ext4",
	unix.FUSE_SUPER_MAGIC: "fuse", unix.MSDOS_SUPER_MAGIC: "vfat", unix.NFS_SUPER_MAGIC: "nfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	unix.SMB2_SUPER_MAGIC: "smb", unix.TMPFS_MAGIC: "tmpfs", unix.V9FS_MAGIC: "9p", unix.XFS_SUPER_MAGIC: "xfs",
}

// Abilities says, one line per source, what each graft's filesystem can do: what is missing has
// a minus. In a writable directory that is tried out with a file that is removed again; a source
// that is read-only, or a file, is only looked at.
func (u *Union) Abilities() []string {
	var out []string
	for _, s := range u.sources {
		var can []string
		err := u.at(s.root, func(fd int) error {
			can = s.look(fd)
			return nil
		})
		if err != nil {
			can = []string{err.Error()}
		}
		out = append(out, fmt.Sprintf("%s %s at %s: %s", s.spec.Kind, s.path, s.spec.Target, strings.Join(can, " ")))
	}
	return out
}

func (s *source) look(fd int) []string {
	var st unix.Statfs_t
	name := "unknown filesystem"
	if unix.Fstatfs(fd, &st) == nil {
		if name = fsNames[int64(st.Type)]; name == "" {
			name = fmt.Sprintf("filesystem %#x", st.Type)
		}
	}
	can := []string{name}
	note := func(what string, err error) {
		sign := "+"
		if err != nil {
			sign = "-"
		}
		can = append(can, sign+what)
	}
	if s.spec.ReadOnly || s.typ != unix.S_IFDIR {
		// FUSE says of a filesystem without access lists that there is none.
		if _, err := layer.Getxattr(fd, "", accessList, nil); err != unix.ENODATA {
			note("acl", err)
		} else if st.Type != unix.FUSE_SUPER_MAGIC {
			note("acl", nil)
		}
		_, err := layer.ListxattrRaw(fd, "", nil)
		note("xattr", err)
		if s.spec.ReadOnly {
			can = append(can, "read-only")
		}
		return can
	}
	s.tryOut(fd, note)
	return can
}

const accessList = "system.posix_acl_access"

// aList returns an access list that says more than a mode can: one user besides the owner.
func aList() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2) // linux/posix_acl_xattr.h
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{0x01, 6, math.MaxUint32}, {0x02, 4, uint32(os.Geteuid())}, {0x04, 0, math.MaxUint32}, {0x10, 4, math.MaxUint32}, {0x20, 0, math.MaxUint32}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// tryOut makes a file in the root of the source, and tries on it what there is to try. It is removed while it is open:
// with a close just before, a server may lose its way and leave the file under another name (libfuse, as sshfs has it).
func (s *source) tryOut(fd int, note func(what string, err error)) {
	probe := fmt.Sprintf(".plyfs-probe-%d", os.Getpid())
	clear := func() {
		for _, ext := range []string{"", "-2", "-3"} {
			_ = layer.Unlink(fd, probe+ext)
		}
	}
	clear()
	f, err := layer.Open(fd, probe, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	note("create", err)
	if err != nil {
		return
	}
	open := []int{f}
	defer func() {
		clear()
		for _, fd := range open {
			unix.Close(fd)
		}
	}()
	note("xattr", layer.Setxattr(fd, probe, "user.plyfs.probe", []byte("y"), 0))
	note("acl", layer.Setxattr(fd, probe, accessList, aList(), 0))
	note("hard-links", layer.Link(fd, probe, fd, probe+"-2"))
	note("symlinks", layer.Symlink("x", fd, probe+"-3"))
	note("chmod", layer.Chmod(fd, probe, 0o640))
	if s.u.priv {
		note("chown", layer.Chown(fd, probe, 1, 1))
	}
	note("flock", unix.Flock(f, unix.LOCK_EX|unix.LOCK_NB))
	lk := unix.Flock_t{Type: unix.F_WRLCK}
	note("posix-locks", unix.FcntlFlock(uintptr(f), unix.F_OFD_SETLK, &lk))
	note("fallocate", unix.Fallocate(f, 0, 0, 1))
	_ = layer.Unlink(fd, probe+"-2")
	if t, err := layer.Open(fd, probe+"-2", unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600); err == nil {
		open = append(open, t)
		note("exchange", layer.Rename(fd, probe, fd, probe+"-2", unix.RENAME_EXCHANGE))
	}
}
