package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// files are those of a layout or a docker archive, as a directory or in a tar file. Names
// are relative, and lead nowhere else.
type files interface {
	io.Closer
	// open returns a regular file and its size; an error that matches fs.ErrNotExist if there is none.
	open(name string) (io.ReadCloser, int64, error)
}

// dirFiles are in a directory.
type dirFiles struct{ root *os.Root }

func (d *dirFiles) Close() error { return d.root.Close() }

func (d *dirFiles) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: no regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// tarFiles are in a tar file, which is read in place.
type tarFiles struct {
	f     *os.File
	files map[string]span
	links map[string]string
}

type span struct{ off, size int64 }

// maxTarFiles bounds the files of a layout that are remembered: an image has two per
// layer, or three.
const maxTarFiles = 100_000

// indexTar looks through a tar file once and remembers where is what.
func indexTar(f *os.File) (*tarFiles, error) {
	t := &tarFiles{f: f, files: map[string]span{}, links: map[string]string{}}
	r := tar.NewReader(f)
	for n := 1; ; n++ {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("no image and no tar archive: entry %d: %w", n, plainEOF(err))
		}
		name, err := clean(h.Name)
		if err != nil || !ofImage(name) {
			continue
		}
		if len(t.files)+len(t.links) >= maxTarFiles {
			break // a root filesystem
		}
		switch h.Typeflag {
		case tar.TypeReg:
			off, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			t.files[name] = span{off, h.Size}
		case tar.TypeLink:
			t.links[name] = h.Linkname
		case tar.TypeSymlink: // old docker archives: a layer that is there twice
			t.links[name] = path.Join(path.Dir(name), h.Linkname)
		}
	}
	return t, nil
}

// ofImage reports whether a name can be one of a layout or a docker archive. What is at the top may be
// called anything: go-containerregistry writes sha256:HEX for a configuration, HEX.tar.gz for a layer.
func ofImage(name string) bool {
	return !strings.Contains(name, "/") || strings.HasPrefix(name, "blobs/") || strings.HasSuffix(name, ".json") || strings.HasSuffix(name, ".tar")
}

func (t *tarFiles) Close() error { return t.f.Close() }

func (t *tarFiles) open(name string) (io.ReadCloser, int64, error) {
	name, err := clean(name)
	if err != nil {
		return nil, 0, err
	}
	for range 8 {
		if s, ok := t.files[name]; ok {
			return io.NopCloser(io.NewSectionReader(t.f, s.off, s.size)), s.size, nil
		}
		to, ok := t.links[name]
		if !ok {
			break
		}
		if name, err = clean(to); err != nil {
			return nil, 0, err
		}
	}
	return nil, 0, fmt.Errorf("%s: %w", printable(name), fs.ErrNotExist)
}

// readSmall reads a small file into memory.
func readSmall(fs files, name string) ([]byte, error) {
	r, size, err := fs.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > maxJSON {
		return nil, fmt.Errorf("%s: %d bytes are too many", name, size)
	}
	b, err := io.ReadAll(io.LimitReader(r, size))
	if err == nil && int64(len(b)) != size {
		err = fmt.Errorf("%s: %w", name, plainEOF(io.ErrUnexpectedEOF))
	}
	return b, err
}

// layoutBlobs are the blobs of a layout.
type layoutBlobs struct{ files }

func (b layoutBlobs) blob(_ context.Context, d *v1.Descriptor) (io.ReadCloser, error) {
	r, size, err := b.open("blobs/sha256/" + d.Digest.Hex)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the blob %s is missing", d.Digest)
	}
	if err != nil {
		return nil, err
	}
	if size != d.Size {
		r.Close()
		return nil, fmt.Errorf("%w: the blob %s has %d bytes, and should have %d", ErrDigest, d.Digest, size, d.Size)
	}
	return r, nil
}
