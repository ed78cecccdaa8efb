package lab

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/whiteout"
)

// file is a file or directory (its name ends in /) of a sample layer.
type file struct {
	name string
	text string
	link string // the file it is a hard link to
	size int64  // of a large file: so many bytes of some data, instead of text

	whiteout bool // no file, but the mark that deletes the name
	opaque   bool // the directory replaces those below it
}

// layer is a directory of the sample.
type layer struct {
	name  string
	files []file
}

// system is the sample of the tour, topmost layer first: a hard link pair, a file that is overridden twice, a
// directory that is replaced (opaque), a file that is deleted (whiteout).
var system = []layer{
	{"app", []file{
		{name: "etc/motd", text: "Welcome to the application.\n"},
		{name: "srv/app.conf", text: "port = 8080\n"},
		{name: "opt/trial.txt", whiteout: true},
	}},
	{"runtime", []file{
		{name: "etc/motd", text: "Welcome to the runtime.\n"},
		{name: "usr/lib/runtime.conf", text: "threads = 4\n"},
		{name: "var/cache/", opaque: true},
		{name: "var/cache/new-index", text: "fresh\n"},
	}},
	{"base", []file{
		{name: "bin/tool", text: "#!/bin/sh\necho tool 1.0\n"},
		{name: "bin/tool-1.0", link: "bin/tool"},
		{name: "etc/motd", text: "Welcome to the base system.\n"},
		{name: "etc/hosts", text: "127.0.0.1 localhost\n"},
		{name: "opt/trial.txt", text: "Thirty days left.\n"},
		{name: "var/cache/old-index", text: "stale\n"},
		{name: "var/cache/old-list", text: "stale\n"},
	}},
}

// MakeSystem writes the layers of the tour, app, runtime and base, into a directory.
func MakeSystem(dir string) error { return makeLayers(dir, system) }

func makeLayers(dir string, layers []layer) error {
	for _, l := range layers {
		if err := os.Mkdir(filepath.Join(dir, l.name), 0o755); err != nil {
			return err
		}
		for _, f := range l.files {
			if err := f.make(filepath.Join(dir, l.name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func makeDirs(dir string, names ...string) error {
	for _, name := range names {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (f *file) make(layer string) error {
	path := filepath.Join(layer, f.name)
	if strings.HasSuffix(f.name, "/") {
		if err := os.MkdirAll(path, 0o755); err != nil || !f.opaque {
			return err
		}
		return makeOpaque(path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	switch {
	case f.whiteout:
		if err := unix.Mknod(path, unix.S_IFCHR, 0); err != nil {
			return fmt.Errorf("%s: making a whiteout: %w; set TMPDIR to a directory on ext4, XFS, btrfs or tmpfs", path, err)
		}
		return nil
	case f.link != "":
		return os.Link(filepath.Join(layer, f.link), path)
	case f.size > 0:
		line := []byte("One line of sixty-four bytes, so that the file is easy to read.\n")
		return os.WriteFile(path, bytes.Repeat(line, int(f.size)/len(line)), 0o644)
	}
	return os.WriteFile(path, []byte(f.text), 0o644)
}

// makeOpaque marks a directory as replacing those below it: for the kernel if we may,
// else for ourselves, else as AUFS did.
func makeOpaque(dir string) error {
	ns := whiteout.Trusted
	if os.Geteuid() != 0 {
		ns = whiteout.User
	}
	if unix.Setxattr(dir, ns.Name("opaque"), []byte("y"), 0) == nil {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, whiteout.OpaqueName), nil, 0o644)
}

// Fingerprint is a digest of all there is to see in directories of dir.
func Fingerprint(dir string, layers ...string) (string, error) {
	h := sha256.New()
	for _, l := range layers {
		err := filepath.WalkDir(filepath.Join(dir, l), func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				return err
			}
			fmt.Fprintf(h, "%q %o %d %d %d %d %d %d %v\n", path, st.Mode, st.Ino, st.Nlink, st.Uid, st.Gid, st.Size, st.Rdev, st.Mtim)
			if !e.Type().IsRegular() {
				return nil
			}
			text, err := os.ReadFile(path)
			h.Write(text)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// names of layers.
func names(layers []layer) []string {
	var list []string
	for _, l := range layers {
		list = append(list, l.name)
	}
	return list
}
