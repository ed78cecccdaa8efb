package image

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// A recipe is a tar archive without the contents of its files: gzip around
//
//	"plyfs recipe 1\n"
//	'L' length bytes          bytes of the archive
//	'F' length path size      so many bytes, which are those of the file at path in the layer
//	'E'                       the end
//
// with lengths and sizes as unsigned varints. It keeps what a directory does not: the
// order of the entries, how their headers were written, the padding.
const (
	recipeMagic   = "plyfs recipe 1\n"
	recipeLiteral = 'L'
	recipeFile    = 'F'
	recipeEnd     = 'E'

	literalMax = 64 << 10
)

// recorder hands an archive on, and writes its recipe meanwhile.
type recorder struct {
	ctx     context.Context
	in      io.Reader
	out     *bufio.Writer
	gz      *gzip.Writer
	literal []byte
	skip    bool  // what is read is a file's contents
	skipped int64 // how many bytes of them
	err     error // of writing
	total   int64
	ended   bool // a read found nothing more
}

func newRecorder(ctx context.Context, in io.Reader, out io.Writer) *recorder {
	gz, _ := gzip.NewWriterLevel(out, gzip.BestSpeed)
	r := &recorder{ctx: ctx, in: in, gz: gz, out: bufio.NewWriterSize(gz, 32<<10), literal: make([]byte, 0, literalMax)}
	_, r.err = r.out.WriteString(recipeMagic)
	return r
}

// Read implements io.Reader.
func (r *recorder) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.in.Read(p)
	r.total += int64(n)
	r.ended = r.ended || n == 0 && err == io.EOF // not with the last bytes: they may be the end mark
	if r.skip {
		r.skipped += int64(n)
		return n, err
	}
	for b := p[:n]; len(b) > 0; {
		k := min(len(b), literalMax-len(r.literal))
		r.literal = append(r.literal, b[:k]...)
		b = b[k:]
		if len(r.literal) == literalMax {
			r.flush()
		}
	}
	return n, err
}

func (r *recorder) flush() {
	if len(r.literal) > 0 {
		r.put(recipeLiteral, uint64(len(r.literal)), r.literal)
		r.literal = r.literal[:0]
	}
}

func (r *recorder) put(kind byte, n uint64, data []byte) {
	if r.err != nil {
		return
	}
	b := binary.AppendUvarint([]byte{kind}, n)
	if _, r.err = r.out.Write(b); r.err == nil {
		_, r.err = r.out.Write(data)
	}
}

// file records that what copy reads is the contents of the file at path.
func (r *recorder) file(path string, size int64, copy func() error) error {
	if size == 0 {
		return copy()
	}
	r.flush()
	r.put(recipeFile, uint64(len(path)), []byte(path))
	if r.err == nil {
		_, r.err = r.out.Write(binary.AppendUvarint(nil, uint64(size)))
	}
	r.skip, r.skipped = true, 0
	err := copy()
	r.skip = false
	if err == nil && r.skipped != size {
		err = fmt.Errorf("%d bytes of archive for a file of %d", r.skipped, size)
	}
	if err == nil {
		err = r.err
	}
	return err
}

// finish ends the recipe.
func (r *recorder) finish() error {
	r.flush()
	if r.err == nil {
		r.err = r.out.WriteByte(recipeEnd)
	}
	if r.err == nil {
		r.err = r.out.Flush()
	}
	if err := r.gz.Close(); r.err == nil {
		r.err = err
	}
	return r.err
}

// ErrRecipe says that a recipe is damaged, or does not fit the files.
var ErrRecipe = errors.New("the recipe is damaged")

// Rebuild writes the archive that recipe and the layer below the directory root give. The
// caller compares its digest: a file that was changed in place is not noticed here.
func Rebuild(recipe io.Reader, root int, w io.Writer) error {
	gz, err := gzip.NewReader(recipe)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRecipe, err)
	}
	in := bufio.NewReader(gz)
	magic := make([]byte, len(recipeMagic))
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != recipeMagic {
		return fmt.Errorf("%w: it does not begin as one", ErrRecipe)
	}
	buf := make([]byte, copyBuffer)
	for {
		kind, err := in.ReadByte()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrRecipe, plainEOF(err))
		}
		if kind == recipeEnd {
			// Its checksum comes at the end.
			if _, err := in.ReadByte(); err != io.EOF {
				return fmt.Errorf("%w: %w", ErrRecipe, plainEOF(err))
			}
			return nil
		}
		n, err := binary.ReadUvarint(in)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrRecipe, plainEOF(err))
		}
		switch {
		case kind == recipeLiteral && n <= literalMax:
			if _, err := io.ReadFull(in, buf[:n]); err != nil {
				return fmt.Errorf("%w: %w", ErrRecipe, plainEOF(err))
			}
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		case kind == recipeFile && n < unix.PathMax:
			path := make([]byte, n)
			if _, err := io.ReadFull(in, path); err != nil {
				return fmt.Errorf("%w: %w", ErrRecipe, plainEOF(err))
			}
			size, err := binary.ReadUvarint(in)
			if err != nil {
				return fmt.Errorf("%w: %w", ErrRecipe, plainEOF(err))
			}
			if err := rebuildFile(root, string(path), size, w, buf); err != nil {
				return fmt.Errorf("%s: %w", printable(string(path)), err)
			}
		default:
			return fmt.Errorf("%w: an unknown part", ErrRecipe)
		}
	}
}

func rebuildFile(root int, path string, size uint64, w io.Writer, buf []byte) error {
	fd, err := openIn(root, path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || uint64(st.Size) != size {
		return errors.New("it is not the file any more that was unpacked")
	}
	for off := int64(0); off < st.Size; {
		n, err := unix.Pread(fd, buf, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}
