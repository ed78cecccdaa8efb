package image

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"regexp"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// ErrDigest is matched by the errors of contents that are not what their digest says.
var ErrDigest = errors.New("wrong digest")

// maxWindow bounds what a zstd stream may make us keep: RFC 8878 recommends 8 MiB, and zstd
// --ultra --long=27 is the most that anybody uses.
const maxWindow = 128 << 20

// maxJSON bounds manifests and configurations. Registries refuse them from 4 MiB on.
const maxJSON = 8 << 20

// digestForm, as hexForm, is compiled when first needed: a mount never does.
var digestForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^sha256:[0-9a-f]{64}$`) })

// Digest returns the digest of b, in the form "sha256:HEX".
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Layer is one layer of an image that is being brought in.
type Layer struct {
	// DiffID is the digest of its archive; "" if it has to be found out.
	DiffID string
	// Blob is the digest of what the source has, compressed or not; "" if it is not known.
	Blob string
	// Size of the blob in bytes; -1 if it is not known.
	Size int64

	open func(ctx context.Context) (io.ReadCloser, error)
	note func() string // nil: none
}

// Notes say what its archive, which was read to the end, has otherwise than the source.
func (l *Layer) Notes() []string {
	if l.note != nil {
		if n := l.note(); n != "" {
			return []string{n}
		}
	}
	return nil
}

// Open returns the layer's archive. A read at its end, and not before, says whether it was
// what the digests promised. count is told about bytes of the blob as they are read; it may be nil.
func (l *Layer) Open(ctx context.Context, count func(n int)) (*Archive, error) {
	blob, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	raw := &verifier{r: blob, ctx: ctx, hash: sha256.New(), want: l.Blob, size: l.Size, count: count, what: "blob"}
	in := bufio.NewReaderSize(raw, 64<<10)
	plain, err := decompress(in)
	if err != nil {
		err = (&Archive{raw: raw, in: in}).Blame(err)
		blob.Close()
		return nil, err
	}
	return &Archive{blob: blob, raw: raw, in: in, plain: plain,
		out: &verifier{r: plain, ctx: ctx, hash: sha256.New(), want: l.DiffID, size: -1, what: "archive"}}, nil
}

// Archive is the tar archive of a layer.
type Archive struct {
	blob  io.ReadCloser
	raw   *verifier
	in    *bufio.Reader
	plain io.ReadCloser
	out   *verifier
	ended bool
}

// Read implements io.Reader. It returns io.EOF only if all digests are right.
func (a *Archive) Read(p []byte) (int, error) {
	n, err := a.out.Read(p)
	if err == io.EOF && !a.ended {
		// What follows the compressed archive counts for the digest of the blob.
		if _, e := io.Copy(io.Discard, a.in); e != nil {
			return n, e
		}
		a.ended = true
	}
	return n, err
}

// Blame returns what is to be said of err, with which somebody stopped reading. Bytes that are not what the digest says
// make no sense to a decompressor or as an archive, mostly, and are refused before all of them were read: the rest is, and
// that the digest is wrong comes first.
func (a *Archive) Blame(err error) error {
	if errors.Is(err, ErrDigest) || a.raw.ctx.Err() != nil || !isAboutBytes(err) {
		return err
	}
	var rest io.Reader = a.in
	if a.raw.want == "" { // the archive's digest is all there is
		if plain, ok := a.plain.(named); !ok || plain.name != "" {
			return err
		}
		rest = a
	}
	if _, e := io.Copy(io.Discard, rest); errors.Is(e, ErrDigest) {
		return fmt.Errorf("%w (%w)", e, err)
	}
	return err
}

// isAboutBytes reports whether an error may come from what was read, and not from where it was to be written.
func isAboutBytes(err error) bool {
	return !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EROFS)
}

// DiffID returns the digest of the archive, which has been read to its end.
func (a *Archive) DiffID() string { return a.out.digest() }

// Close closes it.
func (a *Archive) Close() error {
	a.plain.Close()
	return a.blob.Close()
}

// verifier hands a stream on, and at its end compares digest and size.
type verifier struct {
	r     io.Reader
	ctx   context.Context
	hash  hash.Hash
	want  string // "" for anything
	size  int64  // -1 for any
	read  int64
	count func(int)
	what  string
}

func (v *verifier) Read(p []byte) (int, error) {
	if err := v.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := v.r.Read(p)
	v.hash.Write(p[:n])
	v.read += int64(n)
	if v.count != nil && n > 0 {
		v.count(n)
	}
	if v.size >= 0 && (v.read > v.size || err == io.EOF && v.read < v.size) {
		return n, fmt.Errorf("%w: the %s has %d bytes or more, and should have %d", ErrDigest, v.what, v.read, v.size)
	}
	if err == io.EOF && v.want != "" && v.digest() != v.want {
		return n, fmt.Errorf("%w: the %s is %s, and should be %s", ErrDigest, v.what, v.digest(), v.want)
	}
	return n, err
}

func (v *verifier) digest() string { return "sha256:" + hex.EncodeToString(v.hash.Sum(nil)) }

// decompress looks at how a stream begins. What media types say of it is often wrong.
func decompress(in *bufio.Reader) (io.ReadCloser, error) {
	head, err := in.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	begins := func(magic string) bool { return len(head) >= len(magic) && string(head[:len(magic)]) == magic }
	switch {
	case begins("\x1f\x8b"):
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, compressed("gzip", plainEOF(err))
		}
		return named{z, z.Close, "gzip"}, nil
	case begins("\x28\xb5\x2f\xfd"):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		return named{z, func() error { z.Close(); return nil }, "zstd"}, nil
	case begins("BZh"):
		return nil, foreign("bzip2")
	case begins("\xfd7zXZ\x00"):
		return nil, foreign("xz")
	case begins("\x04\x22\x4d\x18"):
		return nil, foreign("lz4")
	case begins("PK\x03\x04"):
		return nil, errors.New("a zip archive, which has no owners and modes to load: want a tar archive")
	}
	return named{in, func() error { return nil }, ""}, nil
}

// foreign is about a compression that no layer has.
func foreign(name string) error {
	return fmt.Errorf("compressed with %s, and not with gzip or zstd: %s -dc FILE | plyfs image load - does it", name, name)
}

// named is a decompressor whose errors say which one it is.
type named struct {
	r     io.Reader
	close func() error
	name  string
}

func (d named) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err != nil && err != io.EOF && d.name != "" && !errors.Is(err, context.Canceled) {
		err = compressed(d.name, err)
	}
	return n, err
}

// compressed says of an error which decompressor has it, once.
func compressed(name string, err error) error {
	if errors.Is(err, ErrDigest) || strings.HasPrefix(err.Error(), name+": ") {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}

func (d named) Close() error { return d.close() }

// layerTypes are the media types of layers.
var layerTypes = map[types.MediaType]bool{
	types.OCILayer: true, types.OCILayerZStd: true, types.OCIUncompressedLayer: true,
	types.OCIRestrictedLayer: true, types.OCIUncompressedRestrictedLayer: true,
	"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": true,
	types.DockerLayer: true, types.DockerUncompressedLayer: true, types.DockerForeignLayer: true,
	"application/vnd.docker.image.rootfs.diff.tar.zstd": true,
}

// checkDescriptor refuses descriptors that cannot be checked or are absurd.
func checkDescriptor(d *v1.Descriptor) error {
	if !digestForm().MatchString(d.Digest.String()) {
		return fmt.Errorf("%q is no SHA-256 digest", d.Digest.String())
	}
	if d.Size < 0 {
		return fmt.Errorf("%s: a size of %d", d.Digest, d.Size)
	}
	return nil
}

// readBlob reads a small blob into memory, checked.
func readBlob(ctx context.Context, b blobs, d *v1.Descriptor) ([]byte, error) {
	if err := checkDescriptor(d); err != nil {
		return nil, err
	}
	if d.Size > maxJSON {
		return nil, fmt.Errorf("%s: %d bytes are too many for a manifest or a configuration", d.Digest, d.Size)
	}
	r, err := b.blob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	v := &verifier{r: r, ctx: ctx, hash: sha256.New(), want: d.Digest.String(), size: d.Size, what: "blob"}
	out, err := io.ReadAll(v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Digest, err)
	}
	return out, nil
}

// blobs is where the parts of an image are fetched from.
type blobs interface {
	blob(ctx context.Context, d *v1.Descriptor) (io.ReadCloser, error)
}
