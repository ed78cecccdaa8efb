package cow

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Seek is lseek(2) with SEEK_DATA or SEEK_HOLE, ENXIO included; other values of
// whence are EINVAL. A block is data when it is data in the file it comes from.
func (p *Partial) Seek(off int64, whence int) (int64, error) {
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, unix.EINVAL
	}
	if p.finished.Load() || off < 0 || off >= p.valid.Load() {
		return unix.Seek(p.fd, off, whence)
	}
	var st unix.Statx_t
	if err := statFD(p.fd, &st); err != nil {
		return 0, err
	}
	size := int64(st.Size)
	for pos := off; pos < size; {
		data, end, err := p.stretch(pos, size)
		if err != nil {
			return 0, err
		}
		if data == (whence == unix.SEEK_DATA) {
			return pos, nil
		}
		pos = end
	}
	if whence == unix.SEEK_HOLE && off < size {
		return size, nil // the hole every file has at its end
	}
	return 0, unix.ENXIO
}

// stretch says whether there is data at off, and up to where at least that is so.
func (p *Partial) stretch(off, size int64) (data bool, end int64, err error) {
	upper, run, err := p.where(off, size-off)
	if err != nil {
		return false, 0, err
	}
	fd := p.fd
	if !upper {
		low, err := p.lower()
		if err != nil {
			return false, 0, err
		}
		defer low.done()
		fd = low.fd
	}
	if data, end, err = stretch(fd, off, off+run); err != nil {
		return false, 0, fmt.Errorf("%q: seek: %w", p.path, err)
	}
	return data, end, nil
}

// stretch says of the file fd whether there is data at off, and up to where,
// at most limit, that is so.
func stretch(fd int, off, limit int64) (data bool, end int64, err error) {
	pos, err := unix.Seek(fd, off, unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO: // a hole up to the end
		return false, limit, nil
	case err == unix.EINVAL: // a filesystem that knows no holes
		return true, limit, nil
	case err != nil:
		return false, 0, err
	case pos > off:
		return false, min(pos, limit), nil
	}
	pos, err = unix.Seek(fd, off, unix.SEEK_HOLE)
	if err == unix.ENXIO { // it has become shorter
		return false, limit, nil
	}
	return true, min(pos, limit), err
}

var _ io.ReaderAt = readerAt{}

// readerAt gives a Partial the end-of-file rule of [io.ReaderAt].
type readerAt struct{ p *Partial }

func (r readerAt) ReadAt(b []byte, off int64) (int, error) {
	n, err := r.p.ReadAt(b, off)
	if err == nil && n < len(b) {
		err = io.EOF
	}
	return n, err
}

// Reader returns an [io.ReaderAt] of the whole file.
func (p *Partial) Reader() io.ReaderAt { return readerAt{p} }
