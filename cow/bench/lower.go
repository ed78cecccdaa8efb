package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow/bench/rig"
)

const (
	// strangersLayer is the lowest layer of all: small files that no case changes, below strangers.
	strangersLayer = "lower-strangers"
	strangers      = "strangers"
)

var strangersCount = 4000 // tests have fewer

func strangerName(dir string, i int) string {
	return filepath.Join(dir, strangers, fmt.Sprintf("s%05d", i))
}

type runner struct {
	Place
	made map[string]bool // lower directories
}

// lower makes the files of a case, in a directory.
func (r *runner) lower(c *Case) (string, error) {
	if err := r.prepare(filepath.Join(r.Dir, strangersLayer), makeStrangers); err != nil {
		return "", err
	}
	parent := r.Dir
	if c.Apart {
		parent = r.Apart
	}
	dir := filepath.Join(parent, "lower-"+c.spec())
	return dir, r.prepare(dir, c.makeFiles)
}

// prepare makes a directory that no case may change, unless it is there. Nothing of the
// preparation is left to be written while we measure.
func (r *runner) prepare(dir string, fill func(dir string) error) error {
	if r.made[dir] {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := fill(dir); err != nil {
		return err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r.made[dir] = true
	return unix.Syncfs(fd)
}

func makeStrangers(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, strangers), 0o755); err != nil {
		return err
	}
	block := pattern(4096)
	for i := range strangersCount + 1 { // the last is for touch
		if err := os.WriteFile(strangerName(dir, i), block, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (c *Case) makeFiles(dir string) error {
	block := pattern(1 << 20)
	for i := range c.Files {
		path := filepath.Join(dir, fileName(i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		if c.sparse {
			_, e1 := f.WriteAt(block[:4096], 0)
			_, e2 := f.WriteAt(block[:4096], c.Size-4096)
			err = errors.Join(e1, e2)
		} else {
			for at := int64(0); at < c.Size && err == nil; at += int64(len(block)) {
				_, err = f.Write(block[:min(int64(len(block)), c.Size-at)])
			}
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// copyOnce is the case on no union: a copy of the files, and the change of that.
func (r *runner) copyOnce(p *rig.Peer, c *Case, lower, to string, s *samples) error {
	copyTo := func(path string) error {
		rel, err := filepath.Rel(to, path)
		if err != nil {
			return err
		}
		return p.Copy(filepath.Join(lower, rel), path)
	}
	view := *c
	if c.all == nil {
		view.change = func(path string) error {
			if err := copyTo(path); err != nil {
				return err
			}
			return c.change(path)
		}
	} else {
		view.all = func(dir string) error {
			for i := range c.Files {
				if err := copyTo(filepath.Join(dir, fileName(i))); err != nil {
					return err
				}
			}
			return c.all(dir)
		}
	}
	for i := 0; i < c.Files; i += 500 {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, fileName(i))), 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink(filepath.Join(r.Dir, strangersLayer, strangers), filepath.Join(to, strangers)); err != nil {
		return err
	}
	if c.Cold {
		if err := dropCaches(); err != nil {
			return err
		}
	}
	dirtied := rig.Dirtied()
	if err := r.timed(&view, to, s); err != nil {
		return err
	}
	r.wrote(rig.Dirtied()-dirtied, s)
	space, _ := rig.Space(to)
	s.upper = append(s.upper, float64(space))
	return nil
}
