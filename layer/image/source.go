package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Kind is what a source turned out to be.
type Kind string

// The kinds of sources.
const (
	Layout   Kind = "OCI image layout"
	Docker   Kind = "docker archive"
	RootTar  Kind = "root filesystem archive"
	RootDir  Kind = "directory"
	Registry Kind = "registry"
)

// Source is where images come from. The layers of its images can be opened until it is closed.
type Source struct {
	Kind   Kind
	Images []*Image
	files  io.Closer
}

// Close lets go of the files.
func (s *Source) Close() error {
	if s.files == nil {
		return nil
	}
	return s.files.Close()
}

// OpenOptions say how a source is opened.
type OpenOptions struct {
	Platform *Platform // nil: that of this machine
	// Temp is a directory for archives that have to be unpacked or copied to be read.
	Temp string
	// Plain takes an archive or a directory for a root filesystem, whatever is in it.
	Plain bool

	wraps int // how many compressions were taken off already
}

// maxWraps bounds compressions within compressions: one may give itself when it is taken off.
const maxWraps = 4

// Open opens a file or a directory; "-" is standard input.
func Open(ctx context.Context, path string, o OpenOptions) (*Source, error) {
	if o.Platform == nil {
		o.Platform = Host()
	}
	s, err := open(ctx, path, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(s.Images) == 0 {
		s.Close()
		return nil, fmt.Errorf("%s: an %s without an image", path, s.Kind)
	}
	for _, img := range s.Images {
		// A name with a digest is true, or nothing to call it by.
		img.Names = slices.DeleteFunc(slices.Clone(img.Names), func(name string) bool {
			_, digest, has := strings.Cut(name, "@")
			return has && !slices.Contains(img.Digests, digest)
		})
		if img.Config == nil {
			img.Platform = o.Platform // what nobody says of it, the user does
			continue
		}
		if err := o.Platform.check(img.Config); err != nil {
			s.Close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return s, nil
}

func open(ctx context.Context, path string, o OpenOptions) (*Source, error) {
	if path == "-" {
		return openStream(ctx, os.Stdin, path, o)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	switch {
	case st.IsDir():
		f.Close()
		return openDir(ctx, path, o)
	case st.Mode().IsRegular():
		return openFile(ctx, f, path, o)
	}
	defer f.Close()
	return openStream(ctx, f, path, o)
}

// openDir opens a layout, an unpacked docker archive, or a root filesystem.
func openDir(ctx context.Context, path string, o OpenOptions) (*Source, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	files := &dirFiles{root}
	if !o.Plain {
		s, err := openFiles(ctx, files, baseName(path), o)
		if err != nil || s != nil {
			if err != nil {
				files.Close()
			}
			return s, err
		}
	}
	files.Close()
	st, err := os.Stat(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	var s *strangers
	l := &Layer{Size: -1, note: func() string { return s.note() }, open: func(ctx context.Context) (io.ReadCloser, error) {
		s = newStrangers()
		return packPipe(ctx, path, s)
	}}
	return &Source{Kind: RootDir, Images: []*Image{{Created: st.ModTime(), Layers: []*Layer{l}}}}, nil
}

// openFile opens an archive; f is closed with the source, or now.
func openFile(ctx context.Context, f *os.File, path string, o OpenOptions) (*Source, error) {
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		f.Close()
		return nil, err
	}
	if n == 0 {
		f.Close()
		return nil, errors.New("an empty file")
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	// What is compressed, and what decompress has a word for.
	if begins := func(magic string) bool { return strings.HasPrefix(string(head[:n]), magic) }; slices.ContainsFunc(
		[]string{"\x1f\x8b", "\x28\xb5\x2f\xfd", "BZh", "\xfd7zXZ\x00", "\x04\x22\x4d\x18", "PK\x03\x04"}, begins) {
		defer f.Close()
		return openStream(ctx, f, path, o)
	}
	files, err := indexTar(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	if !o.Plain {
		s, err := openFiles(ctx, files, baseName(path), o)
		if err != nil || s != nil {
			if err != nil {
				files.Close()
			}
			return s, err
		}
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Source{Kind: RootTar, files: files, Images: []*Image{{Created: st.ModTime(), Layers: []*Layer{{Size: st.Size(),
		open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(f, 0, st.Size())), nil
		}}}}}}, nil
}

// openStream copies what cannot be read twice to a file, plain, and opens that. The file
// has no name, and goes with its descriptor.
func openStream(ctx context.Context, r io.Reader, path string, o OpenOptions) (*Source, error) {
	in, done := abandonable(ctx, r)
	defer done()
	plain, err := decompress(bufio.NewReaderSize(in, 64<<10))
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	if o.wraps++; o.wraps > maxWraps {
		return nil, fmt.Errorf("compressed more than %d times", maxWraps)
	}
	f, err := os.CreateTemp(o.Temp, "archive-*")
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name())
	n, err := io.Copy(f, plain)
	if err == nil && n == 0 {
		err = errors.New("an empty file")
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, plainEOF(err)
	}
	return openFile(ctx, f, path, o)
}

// abandonable ends a stream when its context ends, also while a read waits for somebody who may never write: that read is
// left behind. done is to be called when no more is wanted.
func abandonable(ctx context.Context, r io.Reader) (in io.Reader, done func()) {
	out, w := io.Pipe()
	go func() {
		_, err := io.Copy(w, r)
		w.CloseWithError(err)
	}()
	stop := context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	return out, func() {
		stop()
		out.Close()
	}
}

// baseName is what an image that has only a tag is called after: the file's name without
// its endings, as far as it can be in a name; "" if nothing is left.
func baseName(path string) string {
	if path == "-" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	name := strings.ToLower(filepath.Base(path))
	for _, end := range []string{".gz", ".zst", ".tgz", ".tar"} {
		name = strings.TrimSuffix(name, end)
	}
	// Between letters and digits there is one dot, one or two underscores, or any number of dashes.
	var b strings.Builder
	between := ""
	for _, r := range name {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			if b.Len() > 0 {
				b.WriteString(between)
			}
			between = ""
			b.WriteRune(r)
			continue
		}
		switch {
		case between == "" && (r == '.' || r == '_'), between == "_" && r == '_':
			between += string(r)
		case strings.Trim(between, "-") == "":
			between += "-"
		default:
			between = "-"
		}
	}
	if b.String() == "sha256" { // with a tag that would be a digest
		return ""
	}
	return b.String()
}
