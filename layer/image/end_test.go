package image_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"testing"
	"testing/iotest"

	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// The end of an archive is its end mark, however the reader gives its last bytes. What Docker makes of a line of a
// Dockerfile that changes nothing is an archive of an end mark alone, compressed.
func TestArchiveEnd(t *testing.T) {
	one := imagetest.Tar(imagetest.Tree("f a x"))
	for _, c := range []struct {
		name    string
		archive []byte
		need    bool // the end mark
		ok      bool
	}{
		{"an end mark alone", make([]byte, 1024), false, true},
		{"an end mark alone, needed", make([]byte, 1024), true, true},
		{"an end mark alone, padded", make([]byte, 10240), true, true},
		{"half an end mark", make([]byte, 512), false, false},
		{"a file and its end mark", one, true, true},
		{"a file without an end mark", one[:len(one)-1024], false, true},
		{"a file without an end mark, needed", one[:len(one)-1024], true, false},
		{"a file with half an end mark, needed", one[:len(one)-512], true, false},
	} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"plain": func(r io.Reader) io.Reader { return r },
			"gzip": func(r io.Reader) io.Reader {
				b, _ := io.ReadAll(r)
				z, err := gzip.NewReader(bytes.NewReader(imagetest.Compress(b, "gzip")))
				if err != nil {
					t.Fatal(err)
				}
				return z
			},
			"with the end": iotest.DataErrReader,
			"by bytes":     iotest.OneByteReader,
		} {
			var recipe, again bytes.Buffer
			root := openDir(t, t.TempDir())
			_, err := image.Unpack(context.Background(), wrap(bytes.NewReader(c.archive)), root, &recipe, image.UnpackOptions{NeedEnd: c.need})
			if (err == nil) != c.ok {
				t.Errorf("%s, %s: %v", c.name, name, err)
			}
			if err != nil {
				continue
			}
			if err := image.Rebuild(&recipe, root, &again); err != nil || !bytes.Equal(again.Bytes(), c.archive) {
				t.Errorf("%s, %s: came back with %d bytes: %v", c.name, name, again.Len(), err)
			}
		}
	}
}
