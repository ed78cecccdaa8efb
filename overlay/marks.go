package overlay

import (
	"bytes"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// mark reads one overlay attribute of name in fd; nil if there is none. A filesystem
// without attributes has none.
func (fs *FS) mark(fd int, name, key string, buf []byte) []byte {
	n, err := layer.Getxattr(fd, name, fs.attr(key), buf)
	if err != nil || n < 0 {
		return nil
	}
	return buf[:n]
}

// hasMark says whether an attribute is there.
func hasMark(fd int, name, attr string, buf []byte) bool {
	_, err := layer.Getxattr(fd, name, attr, buf)
	return err == nil
}

// attr returns the full name of an overlay attribute without allocating.
func (fs *FS) attr(key string) string {
	if full, ok := attrNames[fs.ns][key]; ok {
		return full
	}
	return fs.ns.Name(key)
}

var attrNames = func() (out [2]map[string]string) {
	for _, ns := range []whiteout.Namespace{whiteout.Trusted, whiteout.User} {
		out[ns] = map[string]string{}
		for _, key := range []string{"opaque", "redirect", "origin", "metacopy", "nlink", "impure", "protattr", "whiteout", cow.RecordKey} {
			out[ns][key] = ns.Name(key)
		}
	}
	return out
}()

// opaqueAt says what hides the layers beneath directory name of fd. With last there
// are none, and only xattr whiteouts would matter, which need a layer beneath too.
func (fs *FS) opaqueAt(fd int, name string, last bool) whiteout.Opaque {
	if last {
		return whiteout.OpaqueNone
	}
	return fs.opaque(fs.marksIn(fd, name), fd, name)
}

// marked says which marks a directory may have.
type marked struct{ opaque, legacy, redirect bool }

// marksIn finds out by one call, for a directory without marks, which most are.
func (fs *FS) marksIn(fd int, name string) marked {
	buf := attrLists.Get().(*[256]byte)
	defer attrLists.Put(buf)
	n, err := layer.ListxattrRaw(fd, name, buf[:])
	if err != nil {
		return marked{true, true, true} // cannot be listed, or there are many: each is asked for
	}
	var has marked
	for list := buf[:n]; len(list) > 0; {
		attr, rest, _ := bytes.Cut(list, nul)
		switch {
		case string(attr) == fs.attr("opaque"):
			has.opaque = true
		case string(attr) == fs.attr("redirect"):
			has.redirect = true
		case slices.Contains(whiteout.LegacyOpaque, string(attr)):
			has.legacy = true
		}
		list = rest
	}
	return has
}

var (
	nul       = []byte{0}
	attrLists = sync.Pool{New: func() any { return new([256]byte) }}
)

// opaque is opaqueAt for a directory whose marks are known.
func (fs *FS) opaque(has marked, fd int, name string) whiteout.Opaque {
	var buf [16]byte
	if has.opaque {
		if v := fs.mark(fd, name, "opaque", buf[:]); v != nil {
			return whiteout.ParseOpaque(v)
		}
	}
	if has.legacy {
		for _, legacy := range whiteout.LegacyOpaque {
			if n, err := layer.Getxattr(fd, name, legacy, buf[:]); err == nil && n > 0 {
				if o := whiteout.ParseOpaque(buf[:n]); o != whiteout.OpaqueNone {
					return o
				}
			}
		}
	}
	// .wh..wh..opq of AUFS and of image layers unpacked as they are. Only whether it
	// exists is asked, so that a name swapped for a link meanwhile leads nowhere.
	var st Attr
	if name != "" {
		name += "/"
	}
	if layer.Stat(fd, name+whiteout.OpaqueName, &st) == nil {
		return whiteout.OpaqueYes
	}
	return whiteout.OpaqueNone
}

// setMark writes an overlay attribute. A filesystem that cannot hold it is no error
// where the mark only helps (origin, impure); callers that need it look at err.
func (fs *FS) setMark(fd int, name, key string, val []byte) error {
	return layer.Setxattr(fd, name, fs.attr(key), val, 0)
}

// setOpaque makes a directory opaque; where there are no attributes by a file in it.
func (fs *FS) setOpaque(fd int, name string) error {
	err := fs.setMark(fd, name, "opaque", []byte("y"))
	if err == nil || !noSupport(err) {
		return err
	}
	dir, err := layer.Open(fd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	f, err := layer.Open(dir, whiteout.OpaqueName, unix.O_WRONLY|unix.O_CREAT, 0o600)
	if err == nil {
		unix.Close(f)
	}
	return err
}

// markImpure records that children of an upper directory may have an origin mark
// (kernel: ovl_set_impure).
func (fs *FS) markImpure(d *directory) {
	if d.impure.Load() {
		return
	}
	u := d.upper.Load()
	fd, err := u.FD()
	if err != nil {
		return
	}
	defer u.Done()
	d.impure.Store(true)
	if err := fs.setMark(fd, "", "impure", []byte("y")); err != nil && !noSupport(err) {
		fs.cfg.logf("%s: cannot write the impure mark: %v", u.Path(), err)
	}
}

// readImpure says whether children of the upper directory may have an origin mark.
func (fs *FS) readImpure(fd int, name string) bool {
	var buf [8]byte
	return len(fs.mark(fd, name, "impure", buf[:])) > 0
}

// readOrigin returns the inode an upper object was copied up from.
func (fs *FS) readOrigin(fd int, name string) (linkKey, *whiteout.Origin, bool) {
	var buf [256]byte
	v := fs.mark(fd, name, "origin", buf[:])
	if len(v) == 0 {
		return linkKey{}, nil, false
	}
	o, err := whiteout.ParseOrigin(v)
	if err != nil {
		return linkKey{}, nil, false
	}
	k, ok := fs.originKey(&o)
	return k, &o, ok
}

// originOf makes the origin mark for a lower object; nil where its filesystem has no
// handles (kernel: ovl_encode_real_fh).
func (fs *FS) originOf(d *layer.Dir, fd int, name string) []byte {
	return origin(d.Tree(), handleOf(d.Tree(), fd, name))
}

// handleOf returns the handle of an object of t; nil if it has none.
func handleOf(t *layer.Tree, fd int, name string) *unix.FileHandle {
	if !t.FS.HandleOK {
		return nil
	}
	h, err := layer.Handle(fd, name)
	if err != nil {
		return nil
	}
	return &h
}

// origin makes the origin mark of the object of t that has the handle h.
func origin(t *layer.Tree, h *unix.FileHandle) []byte {
	if h == nil {
		return nil
	}
	o := whiteout.Origin{Type: uint8(h.Type()), FID: h.Bytes()}
	if t.FS.HasUUID {
		o.UUID = t.FS.UUID
	}
	return o.Encode()
}

func noSupport(err error) bool { return err == unix.EOPNOTSUPP || err == unix.ENOSYS }

// isWhiteout recognises the three ways a layer says that a name is gone, except the
// .wh. file, whose name is another one.
func (fs *FS) isWhiteout(d *directory, fd int, name string, st *Attr) bool {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		return whiteout.IsWhiteoutDev(uint32(st.Mode), st.Rdev_major, st.Rdev_minor)
	case unix.S_IFREG:
		if st.Size != 0 || !d.xwhiteouts.Load() && !fs.xwhite {
			return false
		}
		_, err := layer.Getxattr(fd, name, fs.attr("whiteout"), nil)
		return err == nil
	}
	return false
}
