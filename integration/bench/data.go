package main

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// data is one data set: layers, and the same tree as a plain directory.
type data struct {
	lowers []string // topmost first
	plain  string
	names  string // a file that lists the regular files, one a line
	count  int    // how many these are
}

// store makes data sets once and keeps them while the benchmark runs.
type store struct {
	dir  string
	made map[string]*data
}

// get returns the data set of that name, made by make in an empty directory.
func (s *store) get(name string, make func(dir string) (*data, error)) (*data, error) {
	if d, ok := s.made[name]; ok {
		return d, nil
	}
	dir := filepath.Join(s.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	d, err := make(dir)
	if err != nil {
		return nil, fmt.Errorf("data set %s: %w", name, err)
	}
	// So that the first filesystem measured finds what the last one finds.
	for _, root := range append([]string{d.plain}, d.lowers...) {
		exec.Command("tar", "-cf", "/dev/zero", "-C", root, ".").Run()
	}
	s.made[name] = d
	return d, nil
}

// builder writes one tree into layers and into a plain directory.
type builder struct {
	data
	rnd   *rand.Rand
	text  []byte
	list  []string
	known map[string]bool // directories made
}

func newBuilder(dir string, layers int) (*builder, error) {
	b := &builder{rnd: rand.New(rand.NewPCG(1, 2)), known: map[string]bool{}}
	b.plain = filepath.Join(dir, "plain")
	b.names = filepath.Join(dir, "names")
	for i := range layers {
		b.lowers = append(b.lowers, fmt.Sprintf("%s/layer%d", dir, i))
	}
	for _, d := range append(b.lowers, b.plain) {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	words := []string{"layer", "func", "return", "error", "if", "nil", "for", "range", "union", "directory", "(", ")", "{", "}", "\n", "\n\t", "0x7f", "=="}
	for len(b.text) < 1<<20 {
		b.text = append(b.text, words[b.rnd.IntN(len(words))]...)
		b.text = append(b.text, ' ')
	}
	return b, nil
}

// write makes the file rel below root.
func (b *builder) write(root, rel string, content []byte) error {
	path := filepath.Join(root, rel)
	if dir := filepath.Dir(path); !b.known[dir] {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		b.known[dir] = true
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(content) > 0 {
		_, err = unix.Write(fd, content)
	}
	return errors.Join(err, unix.Close(fd))
}

// file makes the file rel of the given size in one layer, and in the plain tree.
func (b *builder) file(layer int, rel string, size int) error {
	at := b.rnd.IntN(len(b.text)/2 + 1)
	content := b.text[at:min(at+size, len(b.text))]
	b.list = append(b.list, rel)
	return errors.Join(b.write(b.lowers[layer], rel, content), b.write(b.plain, rel, content))
}

// done closes the data set.
func (b *builder) done() (*data, error) {
	b.rnd.Shuffle(len(b.list), func(i, j int) { b.list[i], b.list[j] = b.list[j], b.list[i] })
	b.count = len(b.list)
	return &b.data, os.WriteFile(b.names, []byte(strings.Join(b.list, "\n")+"\n"), 0o644)
}

// sourceTree is like a source tree: files files, most of a few KiB, in packages of about
// 14, spread over three layers; every tenth also has an older version further down, every fiftieth directory holds something deleted.
func sourceTree(files int) func(dir string) (*data, error) {
	return func(dir string) (*data, error) {
		const layers = 3
		b, err := newBuilder(dir, layers)
		if err != nil {
			return nil, err
		}
		pkg := ""
		for i := range files {
			if i%14 == 0 {
				p := i / 14
				pkg = fmt.Sprintf("area%d/group%d/package%d", p%7, p%31, p)
			}
			// Log-normal around 4 KiB, as sources are.
			size := int(min(4096*math.Exp(b.rnd.NormFloat64()*1.2), 400<<10))
			layer := b.rnd.IntN(layers)
			rel := fmt.Sprintf("%s/source_%d.go", pkg, i)
			if err := b.file(layer, rel, size); err != nil {
				return nil, err
			}
			if i%10 == 0 && layer < layers-1 {
				err = b.write(b.lowers[layers-1], rel, []byte("older\n"))
			}
			if i%700 == 0 {
				gone := pkg + "/deleted.go"
				if err = b.write(b.lowers[layers-1], gone, []byte("gone\n")); err == nil {
					if err = os.MkdirAll(filepath.Join(b.lowers[0], pkg), 0o755); err == nil {
						err = unix.Mknod(filepath.Join(b.lowers[0], gone), unix.S_IFCHR, 0)
					}
				}
			}
			if err != nil {
				return nil, err
			}
		}
		return b.done()
	}
}

// manyLayers has files files in a hundred directories, each file in one of
// the layers; the topmost and the lowest have some of every directory.
func manyLayers(layers, files int) func(dir string) (*data, error) {
	return func(dir string) (*data, error) {
		b, err := newBuilder(dir, layers)
		if err != nil {
			return nil, err
		}
		for i := range files {
			layer := i % layers
			if layers > files/4 {
				layer = b.rnd.IntN(layers)
			}
			if err := b.file(layer, fmt.Sprintf("part%d/dir%d/file_%d", i%100/10, i%100, i), 300); err != nil {
				return nil, err
			}
		}
		return b.done()
	}
}

// bigDirectory is one directory of entries empty files, one in twenty of
// them in the upper of its two layers.
func bigDirectory(entries int) func(dir string) (*data, error) {
	return func(dir string) (*data, error) {
		b, err := newBuilder(dir, 2)
		if err != nil {
			return nil, err
		}
		for i := range entries {
			layer := 1
			if i%20 == 0 {
				layer = 0
			}
			if err := b.file(layer, fmt.Sprintf("big/entry_%d", i), 0); err != nil {
				return nil, err
			}
		}
		return b.done()
	}
}

// blobs has one file per given size, called blob0 and so on, without holes.
func blobs(sizes ...int64) func(dir string) (*data, error) {
	return func(dir string) (*data, error) {
		b, err := newBuilder(dir, 1)
		if err != nil {
			return nil, err
		}
		piece := filled(1 << 20)
		for i, size := range sizes {
			rel := fmt.Sprintf("blob%d", i)
			for _, root := range []string{b.lowers[0], b.plain} {
				f, err := os.Create(filepath.Join(root, rel))
				if err != nil {
					return nil, err
				}
				for done := int64(0); done < size && err == nil; done += int64(len(piece)) {
					_, err = f.Write(piece[:min(int64(len(piece)), size-done)])
				}
				if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
					return nil, err
				}
			}
			b.list = append(b.list, rel)
		}
		return b.done()
	}
}

// repository is a source tree under version control, in one layer.
func repository(files int) func(dir string) (*data, error) {
	return func(dir string) (*data, error) {
		b, err := newBuilder(dir, 1)
		if err != nil {
			return nil, err
		}
		for i := range files {
			if err := b.file(0, fmt.Sprintf("area%d/package%d/source_%d.go", i%7, i/14, i), 500+b.rnd.IntN(8000)); err != nil {
				return nil, err
			}
		}
		for _, root := range []string{b.lowers[0], b.plain} {
			for _, args := range [][]string{
				{"init", "-q"},
				{"add", "-A"},
				{"-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-q", "-m", "tree"},
			} {
				cmd := exec.Command("git", append([]string{"-C", root, "-c", "gc.auto=0"}, args...)...)
				if out, err := cmd.CombinedOutput(); err != nil {
					return nil, fmt.Errorf("git %s: %w: %s", args[0], err, out)
				}
			}
		}
		return b.done()
	}
}

// archive is an empty layer, and beside it tree.tar, a source tree of files files.
func archive(files int) func(dir string) (*data, error) {
	return func(dir string) (*data, error) {
		b, err := newBuilder(dir, 1)
		if err != nil {
			return nil, err
		}
		tree := filepath.Join(dir, "tree")
		for i := range files {
			size := int(min(4096*math.Exp(b.rnd.NormFloat64()*1.2), 400<<10))
			at := b.rnd.IntN(len(b.text) / 2)
			if err := b.write(tree, fmt.Sprintf("area%d/package%d/source_%d.go", i%7, i/14, i), b.text[at:at+size]); err != nil {
				return nil, err
			}
		}
		if out, err := exec.Command("tar", "-cf", filepath.Join(dir, "tree.tar"), "-C", tree, ".").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("tar: %w: %s", err, out)
		}
		return b.done()
	}
}
