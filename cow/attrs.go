package cow

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
	capability = "security.capability"
	setID      = unix.S_ISUID | unix.S_ISGID
)

// Inode flags (FS_*_FL of linux/fs.h). Those of plainFlags are carried over as
// they are; those of guardFlags would keep the union itself from working on the
// upper file and become a protattr mark, as in ovl_copy_fileattr.
const (
	flSync, flImmutable, flAppend, flNodump, flNoatime, flDirsync = 0x8, 0x10, 0x20, 0x40, 0x80, 0x10000

	plainFlags = flSync | flNodump | flNoatime | flDirsync
	guardFlags = flImmutable | flAppend
)

// target is an object being given its attributes: a descriptor when there is
// one that can be used for it, otherwise a name in the work directory.
type target struct {
	fd   int // -1: none
	dir  int
	name string
}

func (t *target) chown(uid, gid int) error {
	if t.fd >= 0 {
		return unix.Fchown(t.fd, uid, gid)
	}
	return layer.Chown(t.dir, t.name, uid, gid)
}

func (t *target) chmod(mode uint32) error {
	if t.fd >= 0 {
		return unix.Fchmod(t.fd, mode)
	}
	return layer.Chmod(t.dir, t.name, mode)
}

func (t *target) utimens(ts *[2]unix.Timespec) error {
	if t.fd >= 0 {
		return futimens(t.fd, ts)
	}
	return layer.Utimens(t.dir, t.name, ts)
}

func (t *target) setxattr(attr string, val []byte) error {
	if t.fd >= 0 {
		return unix.Fsetxattr(t.fd, attr, val, 0)
	}
	return layer.Setxattr(t.dir, t.name, attr, val, 0)
}

// origin is where attributes come from: an open descriptor when the data had to
// be opened anyway, otherwise a name in its directory.
type origin struct {
	fd   int // -1: none
	dir  int
	name string
}

func (o *origin) list() ([]string, error) {
	if o.fd >= 0 {
		return flistxattr(o.fd)
	}
	return layer.Listxattr(o.dir, o.name)
}

func (o *origin) get(attr string) ([]byte, error) {
	if o.fd >= 0 {
		return fgetxattr(o.fd, attr)
	}
	return layer.GetxattrAll(o.dir, o.name, attr)
}

// attributes gives to everything src has besides its data, in the order that
// never shows more rights than the finished object has: owner, extended
// attributes (chown(2) would drop a capability), flags, marks, mode, times.
// have says the mode the object was made with.
func (e *Engine) attributes(to *target, from *origin, src *Source, w *Want, have uint32) error {
	st := &src.Stat
	mode := uint32(st.Mode)
	kept, err := e.owner(to, src)
	if err != nil {
		return err
	}
	if !kept && mode&unix.S_IFMT != unix.S_IFDIR && mode&setID != 0 {
		mode &^= setID
		e.cfg.Log("%s: set-id bits dropped: the upper cannot keep its owner", src.Path)
	}
	acl, err := e.xattrs(to, from, src)
	if err != nil {
		return err
	}
	if err := e.flags(to, from, src); err != nil {
		return err
	}
	if len(w.Origin) > 0 {
		// A missing origin is no error anywhere: ovl_set_origin ignores it too. It is
		// refused on what can have no user attributes (a link, a device).
		if err := to.setxattr(e.ns.Name("origin"), w.Origin); err != nil && !unsupported(err) && !refused(err) {
			return fail(src, "setxattr origin", err)
		}
	}
	for _, x := range w.Xattrs {
		if err := to.setxattr(x[0], []byte(x[1])); err != nil {
			return fail(src, "setxattr "+x[0], err)
		}
	}
	// Late: user attributes can be set only where the mode lets one write. An
	// access list set above has changed the mode already.
	if mode&unix.S_IFMT != unix.S_IFLNK && (acl || mode&0o7777 != have) {
		if err := to.chmod(mode & 0o7777); err != nil {
			return fail(src, "chmod", err)
		}
	}
	ts := [2]unix.Timespec{timespec(st.Atime), timespec(st.Mtime)}
	if w.truncates(src) {
		ts[1] = unix.Timespec{Nsec: unix.UTIME_NOW} // the data is not the old file's
	}
	if err := to.utimens(&ts); err != nil {
		return fail(src, "utimensat", err)
	}
	return nil
}

// firstMode is the mode to make the copy of a regular file with: its final one, where nothing stands between.
// What the work directory adds to it (an access list) is noticed at the end, see grantsNoMore.
func (e *Engine) firstMode(st *unix.Statx_t) uint32 {
	mode := uint32(st.Mode) & 0o7777
	if mode&setID != 0 || mode&safeMode != safeMode || st.Uid != e.uid || st.Gid != e.gid {
		return safeMode
	}
	return mode
}

// safeMode lets nobody but this process at a copy that is being made, and does let this process.
const safeMode = 0o600

// owner gives to the owner of src. It reports false when that is impossible and
// Config.Squash accepts it.
func (e *Engine) owner(to *target, src *Source) (bool, error) {
	uid, gid := src.Stat.Uid, src.Stat.Gid
	if uid == e.uid && gid == e.gid {
		return true, nil
	}
	setUID, setGID := int(uid), int(gid)
	if uid == e.uid {
		setUID = -1
	}
	if gid == e.gid {
		setGID = -1
	}
	err := to.chown(setUID, setGID)
	if err == nil {
		return true, nil
	}
	if !e.cfg.Squash || (err != unix.EPERM && err != unix.EINVAL && !unsupported(err)) {
		if err == unix.EINVAL {
			err = unix.EOVERFLOW // an owner this user namespace has no number for
		}
		return false, fail(src, fmt.Sprintf("chown to %d:%d", uid, gid), err)
	}
	// The group alone may still be possible.
	if setGID >= 0 && setUID >= 0 && to.chown(-1, setGID) != nil {
		setGID = -1
	}
	return false, nil
}

// xattrs copies the extended attributes and reports whether one of them was an
// access list. As ovl_copy_xattr: the marks of this namespace stay behind, an
// access list must be copied, what the upper's filesystem does not know at all
// is left out.
func (e *Engine) xattrs(to *target, from *origin, src *Source) (acl bool, err error) {
	names, err := from.list()
	if err != nil {
		if unsupported(err) {
			return false, nil
		}
		return false, fail(src, "listxattr", err)
	}
	for _, name := range names {
		if name == e.recordAttr {
			// The layer is the upper of a mount that left files unfinished: what
			// it lacks is in layers of its own that nobody here knows.
			return acl, fail(src, "it is unfinished: settle the layer first", unix.EIO)
		}
		// An escaped mark is data: of an overlay inside the view.
		if _, escaped := e.ns.Unescape(name); (e.ns.IsPrivate(name) && !escaped) || (e.cfg.SkipXattr != nil && e.cfg.SkipXattr(name)) {
			continue
		}
		val, err := from.get(name)
		if err == unix.ENODATA {
			continue
		}
		if err == nil {
			err = to.setxattr(name, val)
		}
		switch {
		case err == nil:
			acl = acl || name == aclAccess
		case name == aclAccess || name == aclDefault:
			// Without its list the file would grant what the list denies.
			return acl, fail(src, "setxattr "+name, err)
		case unsupported(err) || (refused(err) && !strings.HasPrefix(name, "user.")):
			// A lost capability or label takes rights away, it gives none.
			e.cfg.Log("%s: %s not copied: %v", src.Path, name, err)
		default:
			return acl, fail(src, "setxattr "+name, err)
		}
	}
	return acl, nil
}

// flags carries the inode flags over: the harmless ones as they are, append-only
// and immutable as the kernel's protattr mark.
func (e *Engine) flags(to *target, from *origin, src *Source) error {
	p := e.pairOf(&src.Stat)
	if from.fd < 0 || to.fd < 0 || p.noFlags.Load() {
		return nil
	}
	fl, err := unix.IoctlGetUint32(from.fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		if err == unix.ENOTTY || unsupported(err) {
			p.noFlags.Store(true)
		}
		return nil
	}
	if guard := fl & guardFlags; guard != 0 {
		mark := whiteout.ProtAttr{Append: guard&flAppend != 0, Immutable: guard&flImmutable != 0}
		if err := to.setxattr(e.ns.Name("protattr"), mark.Encode()); err != nil {
			// The kernel refuses too: the file would lose its protection.
			return fail(src, "setxattr protattr", err)
		}
	}
	if fl&plainFlags == 0 {
		return nil
	}
	old, err := unix.IoctlGetUint32(to.fd, unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(to.fd, unix.FS_IOC_SETFLAGS, int(old|fl&plainFlags))
	}
	if err != nil {
		e.cfg.Log("%s: file flags %#x not copied: %v", src.Path, fl&plainFlags, err)
	}
	return nil
}

// fail wraps err with what was tried on which path; errors.As still finds the errno.
func fail(src *Source, what string, err error) error {
	return fmt.Errorf("copy up %q: %s: %w", src.Path, what, err)
}

func unsupported(err error) bool { return err == unix.EOPNOTSUPP || err == unix.ENOSYS }

func refused(err error) bool { return err == unix.EPERM || err == unix.EACCES }

func timespec(t unix.StatxTimestamp) unix.Timespec {
	return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)}
}
