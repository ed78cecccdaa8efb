package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// Changes is a writable layer that is to be packed.
type Changes struct {
	// Upper is the layer itself: it says which names it has, and which it takes away.
	Upper string
	// View is the mounted stack: everything else is read there, so that a directory
	// renamed by a mark, a file of which only the attributes were copied up, or one name of several
	// come out whole. A layer means nothing of that to who gets it.
	View string
	// Foreign are paths in the view where something else is mounted, without a leading
	// slash. They are not part of the layer; what the layer has beneath is.
	Foreign []string
}

// StreamLayer returns a layer of which nothing is known before it is read: open returns its archive, plain.
func StreamLayer(open func() (io.ReadCloser, error)) *Layer {
	return &Layer{Size: -1, open: func(context.Context) (io.ReadCloser, error) { return open() }}
}

// pipe runs write in the background and returns what it writes.
func pipe(write func(io.Writer) error) io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }()
	return r
}

// packPipe packs a directory as it is, with root for strangers.
func packPipe(ctx context.Context, dir string, s *strangers) (io.ReadCloser, error) {
	fd, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	return pipe(func(w io.Writer) error {
		defer unix.Close(fd)
		p := newPacker(ctx, w)
		p.strangers = s
		if err := p.emit(fd, "", ""); err != nil {
			return err
		}
		if err := p.everything(fd, ""); err != nil {
			return err
		}
		return p.tar.Close()
	}), nil
}

func openRoot(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", dir, err)
	}
	return fd, nil
}

// Pack writes a writable layer as a tar archive in the form of the OCI image
// specification, "Filesystem Layers".
func Pack(ctx context.Context, c Changes, w io.Writer) error {
	upper, err := openRoot(c.Upper)
	if err != nil {
		return err
	}
	defer unix.Close(upper)
	view, err := openRoot(c.View)
	if err != nil {
		return err
	}
	defer unix.Close(view)
	p := newPacker(ctx, w)
	for _, f := range c.Foreign {
		p.foreign[strings.Trim(f, "/")] = true
	}
	if err := p.emit(view, "", ""); err != nil {
		return err
	}
	if err := p.changed(upper, view, "", false); err != nil {
		return err
	}
	if len(p.links) > 0 {
		if err := p.otherNames(view, ""); err != nil {
			return err
		}
	}
	return p.tar.Close()
}

type packer struct {
	ctx     context.Context
	tar     *tar.Writer
	links   map[inode]*names // of files with several names, as long as not all were met
	foreign map[string]bool
	done    map[string]bool // names of such files that are in the archive
	raw     bool            // what is emitted comes from the upper: it has marks
	buf     []byte

	strangers *strangers // nil: there are none, as in a container's changes
}

type inode struct {
	major, minor uint32
	ino          uint64
}

// names are those of one file: the first that was written, and how many there may be yet.
type names struct {
	first string
	left  uint32
}

func newPacker(ctx context.Context, w io.Writer) *packer {
	return &packer{ctx: ctx, tar: tar.NewWriter(w), links: map[inode]*names{}, foreign: map[string]bool{}, done: map[string]bool{}, buf: make([]byte, copyBuffer)}
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// list returns the names in a directory, sorted: the same tree gives the same archive.
func (p *packer) list(fd int, path string) ([]string, error) {
	if err := p.ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := layer.ReadDir(fd)
	if err != nil {
		return nil, at(path, err)
	}
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.Name
	}
	sort.Strings(out)
	return out, nil
}

func at(path string, err error) error { return fmt.Errorf("/%s: %w", printable(path), err) }

// gone reports that something was removed while we were looking.
func gone(err error) bool { return err == unix.ENOENT || err == unix.ESTALE }

// everything writes all that is below the directory fd.
func (p *packer) everything(fd int, path string) error {
	list, err := p.list(fd, path)
	if err != nil {
		return err
	}
	for _, name := range list {
		sub := join(path, name)
		if p.foreign[sub] {
			return at(sub, errors.New("something is mounted here, in a directory that was renamed: stop the container to pack it"))
		}
		if err := p.emit(fd, name, sub); err != nil {
			if gone(err) {
				continue
			}
			return err
		}
		if err := p.descend(fd, name, sub, func(d int) error { return p.everything(d, sub) }); err != nil {
			return err
		}
	}
	return nil
}

// descend calls f with the directory name, if it is one.
func (p *packer) descend(fd int, name, sub string, f func(d int) error) error {
	d, err := layer.Open(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	switch {
	case err == unix.ENOTDIR || err == unix.ELOOP || err == unix.ENXIO || gone(err):
		return nil
	case err != nil:
		return at(sub, err)
	}
	defer unix.Close(d)
	return f(d)
}

// changed writes what the upper has in a directory, as the view has it. With pure nothing
// beneath the upper is seen there, so that nothing needs to be hidden.
func (p *packer) changed(upper, view int, path string, pure bool) error {
	list, err := p.list(upper, path)
	if err != nil {
		return err
	}
	for _, name := range list {
		sub := join(path, name)
		if target, ok := whiteout.AUFSTarget(name); ok {
			if !pure {
				err = p.hide(path, target)
			}
			if err != nil {
				return err
			}
			continue
		}
		if whiteout.IsAUFSMeta(name) {
			continue
		}
		var st unix.Statx_t
		if err := layer.Stat(upper, name, &st); err != nil {
			if gone(err) {
				continue
			}
			return at(sub, err)
		}
		if isWhiteout(upper, name, &st, whiteout.Trusted) || isWhiteout(upper, name, &st, whiteout.User) {
			if !pure {
				err = p.hide(path, name)
			}
		} else {
			err = p.change(upper, view, name, sub, pure)
		}
		if err != nil && !gone(err) {
			return err
		}
	}
	return nil
}

// change writes one name of the upper.
func (p *packer) change(upper, view int, name, sub string, pure bool) error {
	from := view
	if p.foreign[sub] {
		from = upper
		defer func(was bool) { p.raw = was }(p.raw)
		p.raw = true
	}
	if err := p.emit(from, name, sub); err != nil {
		return err
	}
	return p.descend(upper, name, sub, func(u int) error {
		opaque, moved := p.marks(u)
		if p.raw && moved {
			return at(sub, errors.New("a renamed directory beneath a mount: stop the container to pack it"))
		}
		if (opaque || moved) && !pure {
			if err := p.header(&tar.Header{Name: sub + "/" + whiteout.OpaqueName, Typeflag: tar.TypeReg, Mode: 0o600}); err != nil {
				return at(sub, err)
			}
		}
		if p.raw {
			return p.changed(u, u, sub, pure || opaque)
		}
		return p.descend(view, name, sub, func(v int) error {
			if moved {
				return p.everything(v, sub)
			}
			return p.changed(u, v, sub, pure || opaque)
		})
	})
}

// marks reads those of a directory of the upper, in any form that is read anywhere.
func (p *packer) marks(fd int) (opaque, moved bool) {
	for _, ns := range []whiteout.Namespace{whiteout.Trusted, whiteout.User} {
		opaque = opaque || isOpaque(fd, "", ns)
		if _, err := layer.Getxattr(fd, "", ns.Name("redirect"), nil); err == nil {
			moved = true
		}
	}
	for _, attr := range whiteout.LegacyOpaque {
		if v, err := layer.GetxattrAll(fd, "", attr); err == nil && string(v) == "y" {
			opaque = true
		}
	}
	var st unix.Statx_t
	if layer.Stat(fd, whiteout.OpaqueName, &st) == nil {
		opaque = true
	}
	return opaque, moved
}

// hide writes a whiteout.
func (p *packer) hide(dir, name string) error {
	return p.header(&tar.Header{Name: join(dir, whiteout.AUFSWhiteout(name)), Typeflag: tar.TypeReg, Mode: 0o600})
}

func (p *packer) header(h *tar.Header) error {
	h.Format = tar.FormatPAX
	if h.ModTime.IsZero() {
		h.ModTime = time.Unix(0, 0)
	}
	return p.tar.WriteHeader(h)
}

// otherNames finds the names of files that have been written with another name: of a
// lower file with several, the union copies up one, and means all.
func (p *packer) otherNames(fd int, path string) error {
	list, err := p.list(fd, path)
	if err != nil {
		return err
	}
	for _, name := range list {
		sub := join(path, name)
		var st unix.Statx_t
		if p.foreign[sub] || p.done[sub] || layer.Stat(fd, name, &st) != nil {
			continue
		}
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			err = p.descend(fd, name, sub, func(d int) error { return p.otherNames(d, sub) })
		case st.Nlink > 1 && p.links[inodeOf(&st)] != nil:
			err = p.emit(fd, name, sub)
		}
		if err != nil && !gone(err) {
			return err
		}
		if len(p.links) == 0 {
			return nil
		}
	}
	return nil
}

func inodeOf(st *unix.Statx_t) inode { return inode{st.Dev_major, st.Dev_minor, st.Ino} }
