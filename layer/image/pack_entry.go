package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// emit writes one object, contents included: a directory without what is in it.
func (p *packer) emit(fd int, name, path string) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if strings.HasPrefix(name, whiteout.PrefixWhiteout) {
		return at(path, errors.New("a layer cannot have names that begin with .wh.: there they mean deleted files"))
	}
	var st unix.Statx_t
	if err := layer.Stat(fd, name, &st); err != nil {
		if gone(err) {
			return err
		}
		return at(path, err)
	}
	uid, gid := st.Uid, st.Gid
	if p.strangers != nil {
		uid, gid = p.strangers.owner(fd, name, &st)
	}
	h := &tar.Header{Name: path, Mode: int64(st.Mode) & 0o7777, Uid: int(uid), Gid: int(gid),
		ModTime: time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec))}
	kind := uint32(st.Mode) & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 && p.linked(&st, h) {
		return at2(path, p.header(h))
	}
	var err error
	switch kind {
	case unix.S_IFREG:
		return p.regular(fd, name, path, &st, h)
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, path+"/"
		if path == "" {
			h.Name = "./"
		}
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		h.Linkname, err = layer.Readlink(fd, name)
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if kind == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(st.Rdev_major), int64(st.Rdev_minor)
	default:
		return nil // a socket: its process is what makes it one
	}
	if err == nil {
		err = p.xattrs(fd, name, h)
	}
	if err == nil {
		err = p.header(h)
	}
	return at2(path, err)
}

func at2(path string, err error) error {
	if err == nil {
		return nil
	}
	return at(path, err)
}

// linked turns h into a hard link if the file is in the archive under another name.
func (p *packer) linked(st *unix.Statx_t, h *tar.Header) bool {
	key := inodeOf(st)
	p.done[h.Name] = true
	n := p.links[key]
	if n == nil {
		p.links[key] = &names{first: h.Name, left: st.Nlink - 1}
		return false
	}
	h.Typeflag, h.Linkname = tar.TypeLink, n.first
	if n.left--; n.left == 0 {
		delete(p.links, key)
	}
	return true
}

// regular writes a file with its contents.
func (p *packer) regular(dir int, name, path string, st *unix.Statx_t, h *tar.Header) error {
	fd, err := layer.Open(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME, 0)
	if err == unix.EPERM {
		fd, err = layer.Open(dir, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	if gone(err) {
		return err
	}
	if err != nil {
		return at(path, err)
	}
	defer unix.Close(fd)
	h.Typeflag, h.Size = tar.TypeReg, int64(st.Size)
	if err := p.xattrs(dir, name, h); err != nil {
		return at(path, err)
	}
	if err := p.header(h); err != nil {
		return at(path, err)
	}
	for off := int64(0); off < h.Size; {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Pread(fd, p.buf[:min(int64(len(p.buf)), h.Size-off)], off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return at(path, err)
		}
		if n == 0 {
			return at(path, errors.New("it became shorter while it was read: try again"))
		}
		if _, err := p.tar.Write(p.buf[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// xattrs puts the extended attributes into h, without those that mean something here only.
func (p *packer) xattrs(fd int, name string, h *tar.Header) error {
	list, err := layer.Listxattr(fd, name)
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
		return nil
	}
	if err != nil {
		return fmt.Errorf("extended attributes: %w", err)
	}
	for _, attr := range list {
		if attrName(attr, whiteout.Trusted) == "" || strings.ContainsRune(attr, '=') {
			continue
		}
		key := attr
		if p.raw {
			ok := true
			if key, ok = plainAttr(attr); !ok {
				if strings.HasSuffix(attr, "overlay.metacopy") || strings.HasSuffix(attr, "overlay.plyfs") {
					return errors.New("only part of the file is in the layer, and something is mounted above it: stop the container to pack it")
				}
				continue
			}
		}
		v, err := layer.GetxattrAll(fd, name, attr)
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return fmt.Errorf("extended attribute %s: %w", attr, err)
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+key] = string(v)
	}
	return nil
}

// plainAttr is the name that an attribute of a layer has in the view; false for a mark.
func plainAttr(attr string) (string, bool) {
	for _, ns := range []whiteout.Namespace{whiteout.Trusted, whiteout.User} {
		if ns.IsPrivate(attr) {
			return ns.Unescape(attr)
		}
	}
	return attr, true
}
