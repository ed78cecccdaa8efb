package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// Meta is what a directory is given that the archive mentions only by what is in it.
type Meta struct {
	Mode   uint32       `json:"mode"` // permission, set-id and sticky bits
	UID    int          `json:"uid"`
	GID    int          `json:"gid"`
	Mtime  int64        `json:"mtime"` // nanoseconds since 1970
	Xattrs Keys[[]byte] `json:"xattrs,omitempty"`
}

// PlainDir is what a directory is given of which nobody says anything.
var PlainDir = Meta{Mode: 0o755}

// UnpackOptions say how a layer is unpacked.
type UnpackOptions struct {
	// Namespace is where marks are written.
	Namespace whiteout.Namespace
	// Below returns what the layers beneath have at path, for directories that the
	// archive does not mention; nil, or false from it, stands for a plain one of root.
	Below func(path string) (Meta, bool)
	// SkipDevices leaves device files out, with a note, instead of failing: an
	// ordinary user cannot make them.
	SkipDevices bool
	// OneOwner gives everything to root, with a note: in a user namespace with a single id there
	// is nobody else.
	OneOwner bool
	// NeedEnd refuses an archive without an end mark. Some programs leave it away; where
	// no digest says that the archive is whole, only the mark does.
	NeedEnd bool
}

// Unpacked says what became of an archive.
type Unpacked struct {
	Size    int64 // of all files' contents, in bytes
	Files   int64 // entries
	Notes   []string
	Opaque  bool       // nothing beneath the layer is seen, at all
	Implied Keys[Meta] // directories made because something in them was mentioned
}

const (
	maxNotes   = 20
	maxImplied = 10000 // a record that has to be kept; archives made by programs imply a handful
)

// Unpack reads a tar archive to its end, and makes what is in it below the directory root,
// which is empty. The recipe for the archive is written to recipe, which is not closed. An
// error leaves the directory half made; it says which entry, and why.
func Unpack(ctx context.Context, archive io.Reader, root int, recipe io.Writer, o UnpackOptions) (*Unpacked, error) {
	rec := newRecorder(ctx, archive, recipe)
	u := &unpacker{UnpackOptions: o, rec: rec, tar: tar.NewReader(rec), root: root, buf: make([]byte, copyBuffer)}
	u.out.Implied = Keys[Meta]{}
	defer u.cur.close()
	for {
		h, err := u.tar.Next()
		if err == io.EOF {
			// The standard library is lenient about the last block.
			if rec.total%tarBlock != 0 || rec.ended && o.NeedEnd || u.out.Files == 0 && rec.ended && rec.total > 0 {
				return nil, errTruncated
			}
			break
		}
		if err != nil {
			return nil, fmt.Errorf("entry %d of the archive: %w", u.out.Files+1, plainEOF(err))
		}
		u.out.Files++
		if err := u.entry(h); err != nil {
			return nil, fmt.Errorf("%s: %w", printable(h.Name), err)
		}
	}
	if err := u.leave(); err != nil {
		return nil, err
	}
	// What follows the end mark belongs to the archive, and to its digest.
	if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{rec}, u.buf); err != nil {
		return nil, fmt.Errorf("end of the archive: %w", plainEOF(err))
	}
	return &u.out, rec.finish()
}

const tarBlock = 512

var errTruncated = errors.New("the archive is truncated")

// plainEOF says "truncated" where the standard library says "unexpected EOF".
func plainEOF(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF {
		return fmt.Errorf("the archive is truncated: %w", err)
	}
	return err
}

// printable makes a name from an archive fit for a message.
func printable(name string) string {
	if len(name) > 200 {
		name = name[:200] + "..."
	}
	q := fmt.Sprintf("%q", name)
	if q[1:len(q)-1] == name && name != "" {
		return name
	}
	return q
}

type unpacker struct {
	UnpackOptions
	rec  *recorder
	tar  *tar.Reader
	root int
	out  Unpacked
	buf  []byte
	cur  place // the directory the last entry was in

	squashed bool // the note about owners was made
}

// place is an open directory, with the times it is to have when we are done in it.
type place struct {
	path  string
	fd    int // 0: none
	times [2]unix.Timespec
}

func (p *place) close() {
	if p.fd > 0 {
		unix.Close(p.fd)
	}
	*p = place{}
}

func (u *unpacker) note(format string, args ...any) {
	switch n := len(u.out.Notes); {
	case n < maxNotes:
		u.out.Notes = append(u.out.Notes, fmt.Sprintf(format, args...))
	case n == maxNotes:
		u.out.Notes = append(u.out.Notes, "and more of the kind")
	}
}

// clean returns a name of the archive relative to the layer's root, "" for the root itself.
// A leading slash means that root. A name that leads out of it is an error.
func clean(name string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", errors.New("a NUL in the name")
	}
	rel := strings.TrimLeft(name, "/")
	for elem := range strings.SplitSeq(rel, "/") {
		if elem == ".." {
			return "", errors.New("the name leads out of the layer")
		}
		if len(elem) > unix.NAME_MAX {
			return "", fmt.Errorf("the name is too long: %w", unix.ENAMETOOLONG)
		}
	}
	if len(rel) >= unix.PathMax {
		return "", fmt.Errorf("the path is too long: %w", unix.ENAMETOOLONG)
	}
	rel = path.Clean("/" + rel)[1:]
	return rel, nil
}

func (u *unpacker) entry(h *tar.Header) error {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeDir, tar.TypeLink, tar.TypeSymlink, tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
	default:
		return fmt.Errorf("unknown type %q of an entry", h.Typeflag)
	}
	if h.Name == "" {
		return errors.New("an entry without a name")
	}
	name, err := clean(h.Name)
	if err != nil {
		return err
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return errors.New("the layer's root is no directory")
		}
		if err := u.leave(); err != nil {
			return err
		}
		return u.attributes(u.root, "", h)
	}
	dir, base := path.Split(name)
	for elem := range strings.SplitSeq(strings.TrimSuffix(dir, "/"), "/") {
		switch {
		case whiteout.IsAUFSMeta(elem):
			return nil // .wh..wh.plnk/1.2: as they themselves, see hide
		case strings.HasPrefix(elem, whiteout.PrefixWhiteout):
			return errors.New("something in a whiteout")
		}
	}
	fd, err := u.dir(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteout.PrefixWhiteout) {
		return u.hide(fd, dir, base)
	}
	fresh, opaque, err := u.room(fd, base, h.Typeflag == tar.TypeDir)
	if err != nil {
		return err
	}
	return u.make(fd, name, base, h, fresh, opaque)
}

// room makes sure that the name is free, or, for a directory, that a directory is there. opaque
// says that the layer removed the name beneath before it made a new one.
func (u *unpacker) room(fd int, base string, dir bool) (fresh, opaque bool, err error) {
	var st unix.Statx_t
	switch err := layer.Stat(fd, base, &st); {
	case err == unix.ENOENT:
		return true, false, nil
	case err != nil:
		return false, false, err
	case u.isWhiteout(fd, base, &st):
		return true, dir, layer.Unlink(fd, base)
	case dir && st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return false, false, nil
	}
	return false, false, errors.New("it is in the archive twice")
}

// make makes one object in the directory fd.
func (u *unpacker) make(fd int, name, base string, h *tar.Header, fresh, opaque bool) (err error) {
	switch h.Typeflag {
	case tar.TypeDir:
		if fresh {
			err = layer.Mkdir(fd, base, 0o700)
		}
		if err == nil && opaque {
			err = u.setOpaque(fd, base)
		}
		delete(u.out.Implied, name)
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) >= unix.PathMax || strings.IndexByte(h.Linkname, 0) >= 0 {
			return errors.New("a symbolic link with an impossible target")
		}
		err = layer.Symlink(h.Linkname, fd, base)
	case tar.TypeLink:
		return u.link(fd, base, h)
	case tar.TypeFifo:
		err = layer.Mknod(fd, base, unix.S_IFIFO|0o600, 0)
	case tar.TypeChar, tar.TypeBlock:
		var made bool
		if made, err = u.device(fd, name, base, h); err == nil && !made {
			return nil
		}
	default:
		err = u.file(fd, name, base, h)
	}
	if err != nil {
		return err
	}
	return u.attributes(fd, base, h)
}

// link makes a hard link to what the archive had before.
func (u *unpacker) link(fd int, base string, h *tar.Header) error {
	target, err := clean(h.Linkname)
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", printable(h.Linkname), err)
	}
	dir, tbase := path.Split(target)
	tfd, err := u.beneath(strings.TrimSuffix(dir, "/"))
	if err == nil {
		defer unix.Close(tfd)
		var st unix.Statx_t
		if err = layer.Stat(tfd, tbase, &st); err == nil {
			switch {
			case tbase == "" || st.Mode&unix.S_IFMT == unix.S_IFDIR:
				return fmt.Errorf("hard link to the directory %s", printable(h.Linkname))
			case u.isWhiteout(tfd, tbase, &st):
				err = unix.ENOENT
			default:
				err = layer.Link(tfd, tbase, fd, base)
			}
		}
	}
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return fmt.Errorf("hard link to %s, which is not in the layer", printable(h.Linkname))
	}
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", printable(h.Linkname), err)
	}
	return nil
}

// device makes a device file, or notes that it cannot be.
func (u *unpacker) device(fd int, name, base string, h *tar.Header) (made bool, err error) {
	if h.Devmajor < 0 || h.Devmajor > math.MaxUint32 || h.Devminor < 0 || h.Devminor > math.MaxUint32 {
		return false, errors.New("an impossible device number")
	}
	kind := uint32(unix.S_IFCHR)
	if h.Typeflag == tar.TypeBlock {
		kind = unix.S_IFBLK
	}
	if kind == unix.S_IFCHR && h.Devmajor == 0 && h.Devminor == 0 {
		return false, errors.New("a character device 0:0, which is what overlayfs takes for a deleted file")
	}
	if u.SkipDevices {
		u.note("%s: device %d:%d left out, only root can make one", printable(name), h.Devmajor, h.Devminor)
		return false, nil
	}
	return true, layer.Mknod(fd, base, kind|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
}

// dir returns a descriptor of the directory at path, valid until the next call. Parents
// that the archive has not mentioned are made.
func (u *unpacker) dir(p string) (int, error) {
	if u.cur.fd > 0 && u.cur.path == p {
		return u.cur.fd, nil
	}
	if err := u.leave(); err != nil {
		return -1, err
	}
	fd, err := u.beneath(p)
	if (err == unix.ENOENT || err == unix.ENOTDIR) && p != "" {
		if fd, err = u.imply(p); err != nil {
			return -1, err
		}
		// We were in its parent to make it.
		if err := u.leave(); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	if err == unix.ELOOP {
		return -1, fmt.Errorf("%s is no directory", printable(p))
	}
	if err != nil {
		return -1, err
	}
	if u.cur, err = placeOf(fd, p); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// placeOf remembers the directory fd.
func placeOf(fd int, path string) (place, error) {
	var st unix.Statx_t
	if err := layer.Stat(fd, "", &st); err != nil {
		return place{}, err
	}
	return place{path: path, fd: fd, times: [2]unix.Timespec{
		{Sec: st.Atime.Sec, Nsec: int64(st.Atime.Nsec)}, {Sec: st.Mtime.Sec, Nsec: int64(st.Mtime.Nsec)}}}, nil
}

// leave gives the directory we were in the times it had before we made something in it.
func (u *unpacker) leave() error {
	if u.cur.fd == 0 {
		return nil
	}
	defer u.cur.close()
	return layer.Utimens(u.cur.fd, "", &u.cur.times)
}

// beneath opens a directory of the layer. Symbolic links of the layer are followed, within it.
func (u *unpacker) beneath(p string) (int, error) {
	return openIn(u.root, p, unix.O_PATH|unix.O_DIRECTORY)
}

// openIn opens something below root, which is the root of everything it can reach.
func openIn(root int, p string, flags uint64) (int, error) {
	if p == "" {
		p = "."
	}
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV}
	for {
		fd, err := unix.Openat2(root, p, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// imply makes the directory at path, and its parents, as they are beneath.
func (u *unpacker) imply(p string) (int, error) {
	dir, base := path.Split(p)
	fd, err := u.dir(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return -1, err
	}
	var st unix.Statx_t
	opaque := false
	switch err := layer.Stat(fd, base, &st); {
	case err == nil && u.isWhiteout(fd, base, &st):
		if err := layer.Unlink(fd, base); err != nil {
			return -1, err
		}
		opaque = true
	case err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return -1, fmt.Errorf("%s is a symbolic link that leads nowhere", printable(p))
	case err == nil:
		return -1, fmt.Errorf("%s is no directory", printable(p))
	case err != unix.ENOENT:
		return -1, err
	}
	if len(u.out.Implied) >= maxImplied {
		return -1, fmt.Errorf("more than %d directories that the archive does not mention", maxImplied)
	}
	m := PlainDir
	if u.Below != nil {
		if b, ok := u.Below(p); ok {
			m = b
		}
	}
	if err := layer.Mkdir(fd, base, 0o700); err != nil {
		return -1, err
	}
	if opaque {
		if err := u.setOpaque(fd, base); err != nil {
			return -1, err
		}
	}
	u.out.Implied[p] = m
	h := m.header()
	if err := u.attributes(fd, base, h); err != nil {
		return -1, err
	}
	return layer.Open(fd, base, unix.O_PATH|unix.O_DIRECTORY, 0)
}
