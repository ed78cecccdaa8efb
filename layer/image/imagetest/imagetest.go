// Package imagetest makes small container images for tests, from scratch: layers written as
// lines of text, and everything around them.
package imagetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/plyfs/plyfs/integration/harness"
)

// Entry is one entry of a layer's archive.
type Entry struct {
	tar.Header
	Data []byte
}

// Time is what entries have as modification time, unless told otherwise.
var Time = time.Unix(1_700_000_000, 123_456_000)

// File returns a regular file.
func File(name string, mode int64, data []byte) Entry {
	return Entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, ModTime: Time, Size: int64(len(data))}, data}
}

// Tree returns the entries that lines of text stand for, in the notation of
// integration/harness.Make:
//
//	d DIR                  a directory
//	o DIR                  an opaque directory
//	f FILE CONTENT         a file; Go escapes are understood
//	F FILE SIZE            a file of so many bytes
//	l NAME TARGET          a symbolic link
//	h NAME OTHER           a hard link
//	p NAME                 a fifo
//	c NAME MAJOR MINOR     a character device
//	w NAME                 a whiteout
//	m NAME MODE            changes a mode (octal)
//	u NAME UID GID         changes the owner
//	x NAME ATTR VALUE      sets an extended attribute
//
// Names are taken as they are, parents are not added.
func Tree(text string) []Entry {
	var out []Entry
	find := func(name string) *Entry {
		for i := range out {
			if strings.TrimSuffix(out[i].Name, "/") == name {
				return &out[i]
			}
		}
		panic(fmt.Sprintf("imagetest: no %q", name))
	}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		f := strings.SplitN(line, " ", 3)
		f = append(f, "", "")
		name, rest := f[1], f[2]
		args := append(strings.Fields(rest), "", "")
		add := func(kind byte, h tar.Header, data []byte) {
			h.Typeflag, h.Name, h.ModTime, h.Size = kind, name, Time, int64(len(data))
			if h.Mode == 0 {
				h.Mode = 0o644
			}
			out = append(out, Entry{h, data})
		}
		switch f[0] {
		case "d", "o":
			plain := name
			name += "/"
			add(tar.TypeDir, tar.Header{Mode: 0o755}, nil)
			if f[0] == "o" {
				name = plain + "/.wh..wh..opq"
				add(tar.TypeReg, tar.Header{}, nil)
			}
		case "f":
			if s, err := strconv.Unquote(`"` + rest + `"`); err == nil {
				rest = s
			}
			add(tar.TypeReg, tar.Header{}, []byte(rest))
		case "F":
			add(tar.TypeReg, tar.Header{}, harness.Bytes(harness.Size(rest)))
		case "l":
			add(tar.TypeSymlink, tar.Header{Linkname: rest, Mode: 0o777}, nil)
		case "h":
			add(tar.TypeLink, tar.Header{Linkname: rest}, nil)
		case "p":
			add(tar.TypeFifo, tar.Header{}, nil)
		case "c":
			add(tar.TypeChar, tar.Header{Devmajor: number(args[0]), Devminor: number(args[1])}, nil)
		case "w":
			dir, base := filepath.Split(name)
			name = dir + ".wh." + base
			add(tar.TypeReg, tar.Header{}, nil)
		case "m":
			mode, err := strconv.ParseInt(rest, 8, 32)
			if err != nil {
				panic(err)
			}
			find(name).Mode = mode
		case "u":
			e := find(name)
			e.Uid, e.Gid = int(number(args[0])), int(number(args[1]))
		case "x":
			e := find(name)
			if e.PAXRecords == nil {
				e.PAXRecords = map[string]string{}
			}
			_, value, _ := strings.Cut(rest, " ")
			e.PAXRecords["SCHILY.xattr."+args[0]] = value
		default:
			panic(fmt.Sprintf("imagetest: what is %q?", f[0]))
		}
	}
	return out
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

// Busybox returns a directory /bin with a static busybox and the given names for it. Without one on
// this machine the test is skipped.
func Busybox(t testing.TB, names string) []Entry {
	t.Helper()
	out := append(Tree("d bin"), File("bin/busybox", 0o755, harness.Busybox(t)))
	for name := range strings.FieldsSeq(names) {
		out = append(out, Tree("l bin/"+name+" busybox")...)
	}
	return out
}

// Tar returns the archive of a layer.
func Tar(entries []Entry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			panic(fmt.Sprintf("imagetest: %s: %v", e.Name, err))
		}
		if _, err := w.Write(e.Data); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// Compress returns b compressed with "gzip" or "zstd", or as it is with "".
func Compress(b []byte, how string) []byte {
	var out bytes.Buffer
	switch how {
	case "gzip":
		z := gzip.NewWriter(&out)
		z.Write(b)
		z.Close()
	case "zstd":
		z, err := zstd.NewWriter(&out)
		if err != nil {
			panic(err)
		}
		z.Write(b)
		z.Close()
	default:
		return b
	}
	return out.Bytes()
}

// Digest returns the digest of b, "sha256:HEX".
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Image is an image that is to be made.
type Image struct {
	Name     string // its name in the layout; "" for none
	Platform string // "" for that of this machine
	Config   v1.Config
	Layers   [][]Entry // bottom first
	How      string    // the compression of its layers: gzip, zstd or "" for none
	// Tamper, if not nil, may change any part before it is written: kind is index,
	// manifest, config, layer or tar (a layer before it is compressed).
	Tamper func(kind string, b []byte) []byte
}

// Parts are the pieces of an image.
type Parts struct {
	Manifest []byte
	Config   []byte
	Blobs    map[string][]byte // by digest: config, layers and manifest
	Layers   []string          // digests of the layers' blobs, bottom first
	DiffIDs  []string
}

func (i *Image) platform() (goos, arch, variant string) {
	f := strings.Split(i.Platform, "/")
	if len(f) < 2 {
		return "linux", runtime.GOARCH, ""
	}
	return f[0], f[1], strings.Join(f[2:], "")
}

func (i *Image) tamper(kind string, b []byte) []byte {
	if i.Tamper == nil {
		return b
	}
	return i.Tamper(kind, b)
}

// Build makes the parts. Digests are those of what was there before Tamper changed it.
func (i *Image) Build() *Parts {
	p := &Parts{Blobs: map[string][]byte{}}
	goos, arch, variant := i.platform()
	config := v1.ConfigFile{Created: v1.Time{Time: Time.UTC()}, OS: goos, Architecture: arch, Variant: variant, Config: i.Config, RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{}}}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{}}
	for _, entries := range i.Layers {
		plain := Tar(entries)
		id := Digest(plain)
		blob := Compress(i.tamper("tar", plain), i.How)
		kind := types.OCIUncompressedLayer
		switch i.How {
		case "gzip":
			kind = types.OCILayer
		case "zstd":
			kind = types.OCILayerZStd
		}
		d := Digest(blob)
		p.DiffIDs, p.Layers = append(p.DiffIDs, id), append(p.Layers, d)
		p.Blobs[d] = i.tamper("layer", blob)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, hash(id))
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: kind, Digest: hash(d), Size: int64(len(blob))})
	}
	p.Config = encode(config)
	m.Config = v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: hash(Digest(p.Config)), Size: int64(len(p.Config))}
	p.Blobs[Digest(p.Config)] = i.tamper("config", p.Config)
	p.Manifest = encode(m)
	p.Blobs[Digest(p.Manifest)] = i.tamper("manifest", p.Manifest)
	return p
}

func hash(digest string) v1.Hash {
	h, err := v1.NewHash(digest)
	if err != nil {
		panic(err)
	}
	return h
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// WriteLayout writes images as an OCI image layout into a new directory.
func WriteLayout(t testing.TB, dir string, images ...*Image) {
	t.Helper()
	for name, b := range layoutFiles(images) {
		write(t, filepath.Join(dir, name), b)
	}
}

// WriteNestedLayout writes images for several platforms as one, called name: index.json names an index of them, as
// registries have it.
func WriteNestedLayout(t testing.TB, dir, name string, images ...*Image) {
	t.Helper()
	files := layoutFiles(images)
	inner := files["index.json"]
	files["blobs/sha256/"+strings.TrimPrefix(Digest(inner), "sha256:")] = inner
	files["index.json"] = encode(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{{
		MediaType: types.OCIImageIndex, Digest: hash(Digest(inner)), Size: int64(len(inner)),
		Annotations: map[string]string{"org.opencontainers.image.ref.name": name}}}})
	for name, b := range files {
		write(t, filepath.Join(dir, name), b)
	}
}

// WriteLayoutTar writes images as an OCI image layout into a tar file.
func WriteLayoutTar(t testing.TB, path string, images ...*Image) {
	t.Helper()
	write(t, path, tarOf(layoutFiles(images)))
}

// WriteDocker writes images the way docker save did for years.
func WriteDocker(t testing.TB, path string, images ...*Image) {
	t.Helper()
	files := map[string][]byte{}
	var list []map[string]any
	for _, i := range images {
		p := i.Build()
		config := strings.TrimPrefix(Digest(p.Config), "sha256:") + ".json"
		files[config] = p.Blobs[Digest(p.Config)]
		var layers []string
		for n, d := range p.Layers {
			name := strings.TrimPrefix(p.DiffIDs[n], "sha256:")[:16] + "/layer.tar"
			files[name] = p.Blobs[d]
			layers = append(layers, name)
		}
		tags := []string{}
		if i.Name != "" {
			tags = append(tags, i.Name)
		}
		list = append(list, map[string]any{"Config": config, "RepoTags": tags, "Layers": layers})
	}
	files["manifest.json"] = encode(list)
	write(t, path, tarOf(files))
}

func layoutFiles(images []*Image) map[string][]byte {
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	var tamper func(string, []byte) []byte
	for _, i := range images {
		p := i.Build()
		for d, b := range p.Blobs {
			files["blobs/sha256/"+strings.TrimPrefix(d, "sha256:")] = b
		}
		goos, arch, variant := i.platform()
		d := v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: hash(Digest(p.Manifest)), Size: int64(len(p.Manifest)),
			Platform: &v1.Platform{OS: goos, Architecture: arch, Variant: variant}}
		if i.Name != "" {
			d.Annotations = map[string]string{"org.opencontainers.image.ref.name": i.Name}
		}
		index.Manifests = append(index.Manifests, d)
		if i.Tamper != nil {
			tamper = i.Tamper
		}
	}
	files["index.json"] = encode(index)
	if tamper != nil {
		files["index.json"] = tamper("index", files["index.json"])
	}
	return files
}

func tarOf(files map[string][]byte) []byte {
	var entries []Entry
	for name, b := range files {
		entries = append(entries, File(name, 0o644, b))
	}
	return Tar(entries)
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
