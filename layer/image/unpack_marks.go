package image

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// hide makes the mark that an entry called .wh.SOMETHING stands for, in the directory fd,
// whose path is dir.
func (u *unpacker) hide(fd int, dir, base string) error {
	if base == whiteout.OpaqueName {
		if dir != "" {
			if err := u.unhide(fd); err != nil {
				return err
			}
			return u.setOpaque(fd, "")
		}
		if u.out.Opaque {
			return nil
		}
		u.out.Opaque = true
		return u.unhide(fd)
	}
	if whiteout.IsAUFSMeta(base) {
		return nil // housekeeping of AUFS: .wh..wh.plnk, .wh..wh.orph
	}
	name, ok := whiteout.AUFSTarget(base)
	if !ok {
		return errors.New("a whiteout of nothing")
	}
	if u.alone(fd, dir) {
		return nil
	}
	var st unix.Statx_t
	switch err := layer.Stat(fd, name, &st); {
	case err == unix.ENOENT:
		return u.whiteout(fd, name)
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		// The layer has removed a directory and made a new one.
		if err := u.unhideIn(fd, name); err != nil {
			return err
		}
		return u.setOpaque(fd, name)
	}
	return nil // a file of the layer hides what is beneath anyway
}

// alone reports whether nothing beneath the layer is seen in the directory fd, whose path is dir, because it, or one it
// is in, is opaque.
func (u *unpacker) alone(fd int, dir string) bool {
	if u.out.Opaque || isOpaque(fd, "", u.Namespace) {
		return true
	}
	for p := path.Dir(path.Clean(dir)); p != "."; p = path.Dir(p) {
		d, err := u.beneath(p)
		if err != nil {
			continue
		}
		opaque := isOpaque(d, "", u.Namespace)
		unix.Close(d)
		if opaque {
			return true
		}
	}
	return false
}

// unhide takes the whiteouts in the directory fd away, and those further down: it is to be opaque. They have no meaning
// any more, and the kernel would list them.
func (u *unpacker) unhide(fd int) error {
	if isOpaque(fd, "", u.Namespace) {
		return nil // it was done
	}
	entries, err := layer.ReadDir(fd)
	if err != nil {
		return err
	}
	for _, e := range entries {
		var st unix.Statx_t
		if layer.Stat(fd, e.Name, &st) != nil {
			continue
		}
		switch {
		case u.isWhiteout(fd, e.Name, &st):
			err = layer.Unlink(fd, e.Name)
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			err = u.unhideIn(fd, e.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unhideIn is unhide for a directory in fd, which keeps its times.
func (u *unpacker) unhideIn(fd int, name string) error {
	d, err := layer.Open(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(d)
	p, err := placeOf(d, "")
	if err != nil {
		return err
	}
	if err := u.unhide(d); err != nil {
		return err
	}
	return layer.Utimens(d, "", &p.times)
}

func (u *unpacker) setOpaque(fd int, name string) error {
	if err := layer.Setxattr(fd, name, u.Namespace.Name("opaque"), []byte("y"), 0); err != nil {
		return fmt.Errorf("marking a directory opaque: %w", err)
	}
	return nil
}

// whiteout marks name as deleted: with a device, or where there are none with an
// attribute (kernel: overlayfs.rst, "Whiteouts and opaque directories").
func (u *unpacker) whiteout(fd int, name string) error {
	err := layer.Mknod(fd, name, unix.S_IFCHR, 0)
	if err != unix.EPERM {
		return err
	}
	f, err := layer.Open(fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(f)
	if err := layer.Setxattr(f, "", u.Namespace.Name("whiteout"), nil, 0); err != nil {
		return fmt.Errorf("whiteout: %w", err)
	}
	for _, d := range []int{fd, u.root} { // the kernel wants to be told at the layer's root too
		if err := layer.Setxattr(d, "", u.Namespace.Name("opaque"), []byte("x"), 0); err != nil {
			return fmt.Errorf("whiteout: %w", err)
		}
	}
	return nil
}

func (u *unpacker) isWhiteout(fd int, name string, st *unix.Statx_t) bool {
	return isWhiteout(fd, name, st, u.Namespace)
}

// isWhiteout reports whether an object of a layer is a whiteout, as a device or by attribute.
func isWhiteout(fd int, name string, st *unix.Statx_t, ns whiteout.Namespace) bool {
	if whiteout.IsWhiteoutDev(uint32(st.Mode), st.Rdev_major, st.Rdev_minor) {
		return true
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0 {
		return false
	}
	_, err := layer.Getxattr(fd, name, ns.Name("whiteout"), nil)
	return err == nil
}

func isOpaque(fd int, name string, ns whiteout.Namespace) bool {
	v, err := layer.GetxattrAll(fd, name, ns.Name("opaque"))
	return err == nil && whiteout.ParseOpaque(v) == whiteout.OpaqueYes
}

// attrName returns the name under which an attribute of the archive is kept; "" for one that
// must not be. What would be a mark of overlayfs is escaped, as overlayfs
// does with the attributes of an overlay inside an overlay, and is shown as it was.
func attrName(name string, ns whiteout.Namespace) string {
	switch name {
	case "security.selinux", // the host's business
		"security.ima", "security.evm", // of the host's keys
		"system.nfs4_acl":
		return ""
	}
	for _, legacy := range whiteout.LegacyOpaque {
		if name == legacy {
			return "" // read as a mark, and not escapable
		}
	}
	if strings.IndexByte(name, 0) >= 0 || len(name) > 255 {
		return ""
	}
	escaped, _ := ns.Escape(name)
	return escaped
}
