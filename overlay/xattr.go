package overlay

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
)

// Extended attributes. Those of our own namespace are the union's marks and stay hidden
// (kernel: ovl_is_private_xattr); a caller's of that name are kept escaped, so that a
// union can be built on a union (kernel: overlayfs.rst, "Nested overlayfs mounts").

// stored returns the name an attribute of the view has in a layer; EOPNOTSUPP if it is too long then
// (kernel: ovl_xattr_escape_name).
func (fs *FS) stored(name string) (string, error) {
	if fs.ns.IsPrivate(name) {
		if e, ok := fs.ns.Escape(name); ok {
			name = e
		}
	}
	if len(name) > xattrNameMax {
		return "", unix.EOPNOTSUPP
	}
	return name, nil
}

const xattrNameMax = 255 // XATTR_NAME_MAX of linux/limits.h; the kernel has looked at what callers say

// shown returns the name an attribute of a layer has in the view.
func (fs *FS) shown(name string) (string, bool) {
	if !fs.ns.IsPrivate(name) {
		return name, !fs.hiddenAttr(name)
	}
	return fs.ns.Unescape(name)
}

// hiddenAttr names what other programs keep about a layer.
func (fs *FS) hiddenAttr(name string) bool {
	return fs.overrides != nil && fs.isOverride(name)
}

// Getxattr copies the value of an attribute into buf and returns its length, with an
// empty buf the length only. ENODATA, ERANGE as getxattr(2).
func (fs *FS) Getxattr(n *Node, name string, buf []byte) (int, error) {
	if fs.cfg.NoACL && strings.HasPrefix(name, aclPrefix) {
		return 0, unix.EOPNOTSUPP
	}
	if fs.hiddenAttr(name) {
		return 0, unix.ENODATA
	}
	stored, err := fs.stored(name)
	if err != nil {
		return 0, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	p, err := n.place()
	if err != nil {
		return 0, err
	}
	defer p.done()
	if fs.mapsACL(name) {
		return fs.getACL(p, name, buf)
	}
	return layer.Getxattr(p.fd, p.name, stored, buf)
}

// Listxattr copies the names, each ended by a NUL, into buf and returns their length.
func (fs *FS) Listxattr(n *Node, buf []byte) (int, error) {
	names, err := fs.listxattr(n)
	if err != nil {
		if noSupport(err) {
			return 0, nil
		}
		return 0, err
	}
	size := 0
	for _, name := range names {
		s, ok := fs.shown(name)
		if !ok {
			continue
		}
		if len(buf) > 0 {
			if size+len(s)+1 > len(buf) {
				return 0, unix.ERANGE
			}
			copy(buf[size:], s)
			buf[size+len(s)] = 0
		}
		size += len(s) + 1
	}
	return size, nil
}

func (fs *FS) listxattr(n *Node) ([]string, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	p, err := n.place()
	if err != nil {
		return nil, err
	}
	defer p.done()
	return layer.Listxattr(p.fd, p.name)
}

// Setxattr sets an attribute; flags are XATTR_CREATE and XATTR_REPLACE. With killSGID
// setting an access list takes the set-group-id bit away, as the kernel asks when the
// caller is not in the file's group.
func (fs *FS) Setxattr(c *Caller, n *Node, name string, val []byte, flags int, killSGID bool) error {
	if fs.upper == nil {
		return errReadOnly
	}
	if fs.hiddenAttr(name) || fs.cfg.NoACL && strings.HasPrefix(name, aclPrefix) {
		return unix.EOPNOTSUPP
	}
	stored, err := fs.stored(name)
	if err != nil {
		return err
	}
	if err := fs.guarded(n, guardAppend|guardImmutable); err != nil {
		return err
	}
	if fs.mapsACL(name) {
		if val, err = fs.storedACL(val); err != nil {
			return err
		}
	}
	return fs.changeXattr(c, n, name, func(p pin) error {
		if err := layer.Setxattr(p.fd, p.name, stored, val, flags); err != nil {
			return err
		}
		if name == aclAccess && fs.overrides[fs.upper] != "" {
			return fs.overrideByACL(p, val, killSGID)
		}
		if killSGID && name == aclAccess {
			var st Attr
			if err := layer.Stat(p.fd, p.name, &st); err != nil {
				return err
			}
			if st.Mode&unix.S_ISGID != 0 {
				return layer.Chmod(p.fd, p.name, uint32(st.Mode)&0o7777&^unix.S_ISGID)
			}
		}
		return nil
	})
}

// Removexattr removes an attribute; ENODATA if there is none, in which case a lower file
// is not copied up.
func (fs *FS) Removexattr(c *Caller, n *Node, name string) error {
	if fs.upper == nil {
		return errReadOnly
	}
	stored, err := fs.stored(name)
	if err != nil {
		return err
	}
	if err := fs.guarded(n, guardAppend|guardImmutable); err != nil {
		return err
	}
	if !n.upper.Load() {
		if _, err := fs.Getxattr(n, name, nil); err != nil {
			return err
		}
	}
	return fs.changeXattr(c, n, name, func(p pin) error { return layer.Removexattr(p.fd, p.name, stored) })
}

// changeXattr copies n up and has change change the attribute of the upper object.
func (fs *FS) changeXattr(c *Caller, n *Node, name string, change func(p pin) error) error {
	if err := fs.copyUp(c, n, need{cause: cow.CauseSetxattr, size: -1, meta: true}); err != nil {
		return err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	p, err := n.place()
	if err != nil {
		return err
	}
	defer p.done()
	if n.d != nil && name == aclDefault {
		defer n.d.aclChanged()
	}
	return fs.changing(n, p, 0, func() error { return change(p) })
}
