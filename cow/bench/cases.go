package bench

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/plyfs/plyfs/cow/bench/sample"
)

// Case is one change of lower files.
type Case struct {
	Group string `json:"group"` // plots have one line per peer and group
	Name  string `json:"name"`
	Size  int64  `json:"size"`  // bytes of each file
	Files int    `json:"files"` // how many are changed
	Depth int    `json:"depth"` // lower layers; the files are in the lowest
	Asked int64  `json:"asked"` // bytes that are to change, in all
	Cold  bool   `json:"cold"`  // page caches are dropped first
	Jobs  int    `json:"jobs"`  // how many files are changed at once
	// sparse files have one block of data at each end.
	sparse bool
	change func(path string) error
}

// spec is the shape of files a case needs: cases with the same share them.
func (c *Case) spec() string {
	kind := "full"
	if c.sparse {
		kind = "sparse"
	}
	return fmt.Sprintf("%s-%d-%d", kind, c.Size, c.Files)
}

// Options say what to measure.
type Options struct {
	Quick    bool  // few sizes: about a minute
	Largest  int64 // no file larger than this; 0 for 4 GiB (quick: 64 MiB)
	Rounds   int   // 0 for 5 (quick: 3)
	Match    func(name string) bool
	Progress func(done, total int, what string) // may be nil
}

// Cases returns what Options ask for, in a fixed order.
func Cases(o *Options) []*Case {
	sizes := []int64{4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 16 << 20, 128 << 20, 1 << 30, 4 << 30}
	largest, files := int64(4<<30), 5000
	if o.Quick {
		sizes = []int64{4 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20}
		largest, files = 64<<20, 300
	}
	if o.Largest > 0 {
		largest = o.Largest
	}
	var out []*Case
	add := func(c Case) {
		c.Depth, c.Files, c.Jobs = max(c.Depth, 1), max(c.Files, 1), max(c.Jobs, 1)
		if c.Size <= largest && (o.Match == nil || o.Match(c.Group+": "+c.Name)) {
			out = append(out, &c)
		}
	}
	for _, group := range []struct {
		name   string
		asked  int64
		change func(size int64) func(string) error
	}{
		{"write 1 byte", 1, func(size int64) func(string) error { return writeAt(size/2, 1) }},
		{"append 1 byte", 1, func(size int64) func(string) error { return writeAt(size, 1) }},
		{"chmod", 0, func(int64) func(string) error { return func(p string) error { return os.Chmod(p, 0o600) } }},
		{"O_TRUNC", 0, func(int64) func(string) error {
			return func(p string) error { return os.WriteFile(p, nil, 0o644) }
		}},
	} {
		for _, s := range sizes {
			add(Case{Group: group.name, Name: sample.FormatBytes(float64(s)), Size: s, Asked: group.asked, change: group.change(s)})
		}
	}
	big := min(largest, 256<<20)
	for _, asked := range []int64{4 << 10, 64 << 10, 1 << 20, 16 << 20} {
		add(Case{Group: "overwrite of " + sample.FormatBytes(float64(big)), Name: sample.FormatBytes(float64(asked)), Size: big, Asked: asked, change: writeAt(0, asked)})
	}
	add(Case{Group: "random 4 KiB", Name: "100 writes", Size: big, Asked: 100 * 4096, change: randomWrites(big, 100)})
	add(Case{Group: "cold", Name: "write 1 byte", Size: big, Asked: 1, Cold: true, change: writeAt(big/2, 1)})
	add(Case{Group: "sparse", Name: "write 1 byte", Size: big, Asked: 1, sparse: true, change: writeAt(big/2, 1)})
	for _, depth := range []int{1, 20, 100} {
		add(Case{Group: "layers", Name: fmt.Sprint(depth), Size: 1 << 20, Asked: 1, Depth: depth, change: writeAt(0, 1)})
	}
	for _, jobs := range []int{1, 4} {
		add(Case{Group: "many small files", Name: fmt.Sprintf("append, %d at once", jobs), Size: 4 << 10, Files: files, Jobs: jobs, Asked: int64(files), change: writeAt(4<<10, 1)})
	}
	add(Case{Group: "many small files", Name: "chown", Size: 4 << 10, Files: files, change: func(p string) error { return os.Lchown(p, 1000, 1000) }})
	return out
}

func writeAt(off, n int64) func(string) error {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) | 1
	}
	return func(path string) error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if _, err = f.WriteAt(b, off); err != nil {
			f.Close()
			return err
		}
		return f.Close()
	}
}

func randomWrites(size int64, count int) func(string) error {
	return func(path string) error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		b := make([]byte, 4096)
		x := uint64(88172645463325252) // the same places on every peer
		for range count {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			b[0] = byte(x)
			if _, err := f.WriteAt(b, int64(x%uint64(size/4096))*4096); err != nil {
				return err
			}
		}
		return nil
	}
}

// fileName is the name of file i of a case, in the view.
func fileName(i int) string {
	return filepath.Join(fmt.Sprintf("d%03d", i/500), fmt.Sprintf("f%05d", i))
}
