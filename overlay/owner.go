package overlay

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// Ownership. Objects are stored with ids of the host and shown with ids of the view;
// without a mapping both are the same. New objects are made with the filesystem ids of
// the caller, so that the kernel gives them their owner in the same step; where that
// cannot be (a plain user's daemon) they belong to this process.

// mapOut turns stored owners into shown ones, and shows one kept in an attribute.
func (fs *FS) mapOut(n *Node, a *Attr) {
	if fs.overrides != nil {
		fs.overridden(n, a)
	}
	if fs.cfg.UIDMap != nil {
		a.Uid = toView(fs.cfg.UIDMap, a.Uid)
	}
	if fs.cfg.GIDMap != nil {
		a.Gid = toView(fs.cfg.GIDMap, a.Gid)
	}
	if fs.cfg.SquashUID >= 0 {
		a.Uid = uint32(fs.cfg.SquashUID)
	}
	if fs.cfg.SquashGID >= 0 {
		a.Gid = uint32(fs.cfg.SquashGID)
	}
}

const overflowID = 65534

func toView(m []IDRange, id uint32) uint32 {
	if v, ok := fromHost(m, id); ok {
		return v
	}
	return overflowID
}

func fromHost(m []IDRange, id uint32) (uint32, bool) {
	if m == nil {
		return id, true
	}
	for _, r := range m {
		if id >= r.Host && id-r.Host < r.Count {
			return r.View + (id - r.Host), true
		}
	}
	return 0, false
}

func toHost(m []IDRange, id uint32) (uint32, bool) {
	if m == nil {
		return id, true
	}
	for _, r := range m {
		if id >= r.View && id-r.View < r.Count {
			return r.Host + (id - r.View), true
		}
	}
	return 0, false
}

// stow returns what s asks to store as owner and group; -1: nothing.
func (fs *FS) stow(s *SetAttr) (uid, gid int, err error) {
	uid, gid = -1, -1
	for _, f := range []struct {
		asked bool
		ids   []IDRange
		view  uint32
		to    *int
	}{
		{s.Mask&SetUID != 0, fs.cfg.UIDMap, s.UID, &uid},
		{s.Mask&SetGID != 0, fs.cfg.GIDMap, s.GID, &gid},
	} {
		if !f.asked {
			continue
		}
		id, ok := toHost(f.ids, f.view)
		if !ok {
			return -1, -1, unix.EINVAL
		}
		*f.to = int(id)
	}
	return uid, gid, nil
}

// ids returns the stored owner of what the caller makes.
func (fs *FS) ids(c *Caller) (uid, gid uint32, err error) {
	if c == nil {
		return fs.self.uid, fs.self.gid, nil
	}
	uid, ok := toHost(fs.cfg.UIDMap, c.UID)
	gid, ok2 := toHost(fs.cfg.GIDMap, c.GID)
	if !ok || !ok2 {
		return 0, 0, unix.EOVERFLOW
	}
	return uid, gid, nil
}

// plain says whether everything simply belongs to this process.
func (fs *FS) plain() bool {
	return !fs.self.privileged || fs.cfg.SquashUID >= 0 || fs.cfg.SquashGID >= 0 || fs.overrides[fs.upper] != ""
}

// as runs f with the caller's filesystem ids.
func (fs *FS) as(c *Caller, f func() error) error {
	if fs.plain() && fs.overrides[fs.upper] == "" {
		return f()
	}
	uid, gid, err := fs.ids(c)
	if err != nil {
		return err
	}
	if fs.plain() || uid == fs.self.uid && gid == fs.self.gid {
		return f()
	}
	return layer.WithCreds(uid, gid, f)
}

// own notes the owner of an object just made in dir where making it could not. The attribute of a
// set-group-id directory gives its group to what is made there, as the bit itself would.
func (fs *FS) own(c *Caller, dir, fd int, name string) error {
	attr := fs.overrides[fs.upper]
	if attr == "" || c == nil {
		return nil
	}
	var st, parent Attr
	if err := layer.Stat(fd, name, &st); err != nil {
		return err
	}
	if err := layer.Stat(dir, "", &parent); err != nil {
		return err
	}
	fs.overriddenAt(fs.upper, dir, "", &parent)
	uid, gid, err := fs.ids(c)
	if err != nil {
		return err
	}
	var set SetAttr
	if parent.Mode&unix.S_ISGID != 0 {
		gid = parent.Gid
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			set.Mask, set.Mode = SetMode, uint32(st.Mode)&0o7777|unix.S_ISGID
		}
	}
	if !mayOverride(attr, uint32(st.Mode)) {
		if _, err := fs.chownTo(pin{fd: fd, name: name}, int(uid), int(gid)); err != unix.EPERM {
			return err
		}
		return nil // see changeAsMayBe
	}
	st.Uid, st.Gid = uid, gid
	return fs.override(fd, name, &st, &set)
}

// reserved says whether a name means something else in a layer.
func reserved(name string) bool {
	return strings.HasPrefix(name, whiteout.PrefixWhiteout)
}
