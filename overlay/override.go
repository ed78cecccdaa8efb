package overlay

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// Owners, modes and types kept in an attribute, where files cannot have their own: as containers/storage
// writes them into layers (force_mask), and fuse-overlayfs under xattr_permissions. A layer
// is kept so if its root has the attribute.

// findOverrides notes for each layer which attribute it uses. xattr_permissions decides for the upper,
// and for the layers that do not say.
//
// An attribute that its files' owner may write counts only where it gives nobody more than he has:
// not for root of the machine, unless asked for.
func (fs *FS) findOverrides() {
	names := []string{whiteout.OverrideStatPrivileged, whiteout.OverrideStatUser, whiteout.OverrideStatOld}
	asked := ""
	switch fs.cfg.XattrPermissions {
	case 1:
		asked = whiteout.OverrideStatPrivileged
	case 2:
		asked = whiteout.OverrideStatUser
	}
	if asked != whiteout.OverrideStatUser && fs.self.privileged && initialUsers() {
		names = names[:1]
	}
	note := func(t *layer.Tree, attr string) {
		if attr != "" {
			if fs.overrides == nil {
				fs.overrides = map[*layer.Tree]string{}
			}
			fs.overrides[t] = attr
		}
	}
	for _, trees := range [...][]*layer.Tree{fs.lowers, fs.datas, {fs.upper}} {
		for _, t := range trees {
			switch {
			case t == nil:
			case t == fs.upper && asked != "":
				note(t, asked)
			default:
				note(t, rootOverride(t, names, asked))
			}
		}
	}
}

// tryOverride refuses an upper whose objects cannot have the attribute that was asked for: none could be made.
func (fs *FS) tryOverride() error {
	attr, instead := whiteout.OverrideStatUser, ""
	switch fs.cfg.XattrPermissions {
	case 0:
		return nil
	case 1:
		attr, instead = whiteout.OverrideStatPrivileged, "; use xattr_permissions=2"
	}
	fd, err := fs.stage.FD()
	if err != nil {
		return failure(fs.cfg.Work, "cannot open the staging directory in it", err)
	}
	defer fs.stage.Done()
	name := fs.tempName()
	if err := layer.Mkdir(fd, name, 0o700); err != nil {
		return failure(fs.cfg.Work, "cannot make a directory in it", err)
	}
	defer func() { _ = layer.Rmdir(fd, name) }()
	if err := layer.Setxattr(fd, name, attr, []byte("0:0:0700"), 0); err != nil {
		return refusal(fs.cfg.Upper, fmt.Sprintf("owners cannot be kept in %s here (%v)%s", attr, err, instead), Errno(err))
	}
	return nil
}

// rootOverride returns the first of names that the root of t has, otherwise what.
func rootOverride(t *layer.Tree, names []string, what string) string {
	fd, err := t.Root.FD()
	if err != nil {
		return what
	}
	defer t.Root.Done()
	for _, name := range names {
		if _, err := layer.Getxattr(fd, ".", name, nil); err == nil { // see makeRoot
			return name
		}
	}
	return what
}

// initialUsers is [layer.InitialUsers], and true where there are no namespaces.
func initialUsers() bool {
	all, err := layer.InitialUsers()
	return all || err != nil
}

// isOverride says whether an attribute is one of those in use.
func (fs *FS) isOverride(name string) bool {
	for _, attr := range fs.overrides {
		if attr == name {
			return true
		}
	}
	return false
}

// overridden replaces owner and mode by those kept in the attribute. n.mu is held.
func (fs *FS) overridden(n *Node, a *Attr) {
	t := fs.upper
	if !n.upper.Load() {
		t = n.dir.Tree()
	}
	if fs.overrides[t] == "" {
		return
	}
	p, err := n.place()
	if err != nil {
		return
	}
	defer p.done()
	fs.overriddenAt(t, p.fd, p.name, a)
}

// mayOverride says whether an object can have the attribute: links and devices have none in user.
func mayOverride(attr string, mode uint32) bool {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		return true
	}
	return attr == whiteout.OverrideStatPrivileged
}

// overrideAt reads the attribute of an object of a layer.
func (fs *FS) overrideAt(t *layer.Tree, fd int, name string) (o whiteout.OverrideStat, ok bool) {
	attr := fs.overrides[t]
	if attr == "" {
		return o, false
	}
	var buf [128]byte
	size, err := layer.Getxattr(fd, name, attr, buf[:])
	if err != nil {
		return o, false
	}
	o, err = whiteout.ParseOverrideStat(buf[:size])
	return o, err == nil
}

// overriddenAt is overridden for an object of a layer.
func (fs *FS) overriddenAt(t *layer.Tree, fd int, name string, a *Attr) {
	o, ok := fs.overrideAt(t, fd, name)
	if !ok {
		return
	}
	a.Uid, a.Gid = o.UID, o.GID
	a.Mode = a.Mode&unix.S_IFMT | uint16(o.Mode)
	retype(o, a)
}

// retype shows the empty file that stands for a device, a fifo or a socket as that. A character
// device 0:0 would be a whiteout where it is copied up to: it stays a file.
func retype(o whiteout.OverrideStat, a *Attr) {
	typ, major, minor, ok := o.Special()
	if !ok || a.Mode&unix.S_IFMT != unix.S_IFREG || a.Size != 0 || whiteout.IsWhiteoutDev(typ, major, minor) {
		return
	}
	a.Mode = a.Mode&0o7777 | uint16(typ)
	a.Rdev_major, a.Rdev_minor = major, minor
}

// retypeAt is retype for an object of a layer.
func (fs *FS) retypeAt(t *layer.Tree, fd int, name string, a *Attr) {
	if fs.overrides[t] == "" || a.Mode&unix.S_IFMT != unix.S_IFREG || a.Size != 0 {
		return
	}
	if o, ok := fs.overrideAt(t, fd, name); ok {
		retype(o, a)
	}
}

// override writes the attribute for an upper object: mask says which of the values
// count, the others stay, and so does the type.
func (fs *FS) override(fd int, name string, st *Attr, set *SetAttr) error {
	before, _ := fs.overrideAt(fs.upper, fd, name)
	o := whiteout.OverrideStat{UID: st.Uid, GID: st.Gid, Mode: uint32(st.Mode) & 0o7777, Type: before.Type}
	uid, gid, err := fs.stow(set)
	if err != nil {
		return err
	}
	if uid >= 0 {
		o.UID = uint32(uid)
	}
	if gid >= 0 {
		o.GID = uint32(gid)
	}
	if set.Mask&SetMode != 0 {
		o.Mode = set.Mode & 0o7777
	}
	return layer.Setxattr(fd, name, fs.overrides[fs.upper], o.Encode(), 0)
}

// carryOver prepares the copy-up of an object whose owner and mode are in an attribute: an upper that
// keeps them so gets the attribute, another one the owner, the mode and the type. st is the object's;
// what is returned are attributes to set.
func (fs *FS) carryOver(t *layer.Tree, fd int, name string, st *Attr) (xattrs [][2]string) {
	if fs.overrides == nil {
		return nil
	}
	shown := *st
	fs.overriddenAt(t, fd, name, &shown)
	attr := fs.overrides[fs.upper]
	if attr == "" {
		*st = shown
		return nil
	}
	if !mayOverride(attr, uint32(st.Mode)) {
		return nil
	}
	o, _ := fs.overrideAt(t, fd, name) // for its type
	o.UID, o.GID, o.Mode = shown.Uid, shown.Gid, uint32(shown.Mode)&0o7777
	return [][2]string{{attr, string(o.Encode())}}
}
