package bench

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

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
	Apart bool   `json:"apart"` // the layers are on another filesystem than the upper
	// Peers names those that are measured; empty for all but the ones that serve
	// single cases only (see special).
	Peers []string `json:"-"`
	// rounds is how many there are without a warm-up, for what takes minutes; 0 for Options.Rounds.
	rounds int
	// sparse files have one block of data at each end.
	sparse bool
	// alone has nobody look at other files meanwhile: with two processors that slows a copy down.
	alone bool
	// settle measures what completing the files takes afterwards.
	settle bool
	change func(path string) error
	// all changes every file below a directory instead, in one go.
	all func(dir string) error
}

// title is what Options.Match is asked about.
func (c *Case) title() string { return c.Group + ": " + c.Name }

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
	Quick   bool    // few sizes
	Targets bool    // only what the targets need
	Custom  *Custom // instead of the sweep; nil for that
	Largest int64   // no file larger than this; 0 for 4 GiB (quick: 64 MiB)
	Rounds  int     // 0 for 5 (quick: 2)
	// Deadline is when no round is begun any more, but the first of a case: that is of one peer then. Zero for none.
	Deadline time.Time
	Match    func(name string) bool             // which cases, by "group: name"; nil for all
	Peer     func(name string) bool             // which peers; nil for all
	Progress func(done, total int, what string) // may be nil
	now      func() time.Time                   // nil for time.Now
}

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// Cases returns what Options ask for, in a fixed order. filesystem is the type of the upper's.
// The error is an [*OptionError] about Options.Custom.
func Cases(o *Options, filesystem string) ([]*Case, error) {
	largest := int64(4 * gib)
	var all []Case
	switch {
	case o.Custom != nil:
		var err error
		if all, err = o.Custom.cases(); err != nil {
			return nil, err
		}
		largest = math.MaxInt64
	case o.Targets:
		all = targetCases(filesystem)
	case o.Quick:
		largest = 64 * mib
		all = quick(sweep([]int64{4 * kib, 64 * kib, mib, 16 * mib, 64 * mib}, 64*mib, 200))
	default:
		all = append(sweep([]int64{4 * kib, 16 * kib, 64 * kib, 256 * kib, mib, 16 * mib, 128 * mib, gib, 4 * gib}, 256*mib, 5000), thresholds()...)
	}
	if o.Largest > 0 {
		largest = o.Largest
	}
	var out []*Case
	for _, c := range all {
		c.Depth, c.Files, c.Jobs = max(c.Depth, 1), max(c.Files, 1), max(c.Jobs, 1)
		if c.Size <= largest && (o.Match == nil || o.Match(c.title())) {
			out = append(out, &c)
		}
	}
	return out, nil
}

// sweep goes over sizes of files, amounts, offsets and patterns. big is the size of the files
// of which only one is used, files how many small ones are changed together.
func sweep(sizes []int64, big int64, files int) []Case {
	var out []Case
	add := func(c Case) { out = append(out, c) }
	for _, group := range []struct {
		name   string
		asked  int64
		change func(size int64) func(string) error
	}{
		{"write 1 byte", 1, func(size int64) func(string) error { return writeAt(size/2, 1) }},
		{"append 1 byte", 1, func(size int64) func(string) error { return writeAt(size, 1) }},
		{"chmod", 0, func(int64) func(string) error { return chmod }},
		{"O_TRUNC", 0, func(int64) func(string) error { return truncateOpen }},
	} {
		for _, s := range sizes {
			add(Case{Group: group.name, Name: inBytes(s), Size: s, Asked: group.asked, change: group.change(s), settle: group.name == "write 1 byte"})
		}
	}
	for _, asked := range []int64{4 * kib, 64 * kib, mib, 16 * mib} {
		add(Case{Group: "overwrite in " + inBytes(big), Name: inBytes(asked), Size: big, Asked: asked, change: writeAt(0, asked)})
	}
	for _, at := range []struct {
		name string
		off  int64
	}{{"start", 0}, {"middle", big / 2}, {"end", big - 4*kib}, {"middle, across a block", big/2 + 1000}} {
		add(Case{Group: "4 KiB in " + inBytes(big), Name: at.name, Size: big, Asked: 4 * kib, change: writeAt(at.off, 4*kib)})
	}
	add(Case{Group: "patterns in " + inBytes(big), Name: "100 random writes of 4 KiB", Size: big, Asked: 100 * 4 * kib, change: randomWrites(big, 100)})
	add(Case{Group: "patterns in " + inBytes(big), Name: "truncate to half", Size: big, change: truncateTo(big / 2)})
	add(Case{Group: "patterns in " + inBytes(big), Name: "make it longer", Size: big, change: truncateTo(big + mib)})
	add(Case{Group: "patterns in " + inBytes(big), Name: "sparse, write 1 byte", Size: big, Asked: 1, sparse: true, change: writeAt(big/2, 1)})
	for _, s := range []int64{4 * kib, mib, big} {
		add(Case{Group: "cold caches, write 1 byte", Name: inBytes(s), Size: s, Asked: 1, Cold: true, change: writeAt(s/2, 1)})
	}
	for _, s := range []int64{4 * kib, mib, big} {
		add(Case{Group: "layers on another filesystem, write 1 byte", Name: inBytes(s), Size: s, Asked: 1, Apart: true, change: writeAt(s/2, 1)})
	}
	for _, depth := range []int{1, 20, 100} {
		add(Case{Group: "layers", Name: fmt.Sprint(depth), Size: mib, Asked: 1, Depth: depth, change: writeAt(0, 1)})
	}
	for _, jobs := range []int{1, 4} {
		add(Case{Group: "many small files", Name: fmt.Sprintf("append, %d at once", jobs), Size: 4 * kib, Files: files, Jobs: jobs, Asked: int64(files), change: writeAt(4*kib, 1), settle: true})
	}
	add(Case{Group: "many small files", Name: "chown -R", Size: 4 * kib, Files: files, all: chownTree, settle: true})
	for _, jobs := range []int{1, 4} {
		add(Case{Group: "four of " + inBytes(big/4), Name: fmt.Sprintf("append, %d at once", jobs), Size: big / 4, Files: 4, Jobs: jobs, Asked: 4, change: writeAt(big/4, 1)})
	}
	return out
}

// quick leaves out what lies between the first and the last case of a group, but for the first group.
func quick(all []Case) []Case {
	var out []Case
	for i, c := range all {
		inner := i > 0 && i < len(all)-1 && all[i-1].Group == c.Group && all[i+1].Group == c.Group
		if !inner || c.Group == all[0].Group {
			out = append(out, c)
		}
	}
	return out
}

// thresholds compares, for files of growing size, copying them whole with leaving them
// unfinished, until they are complete: where the lines cross, the thresholds are.
func thresholds() []Case {
	var out []Case
	for _, s := range []int64{4 * kib, 16 * kib, 32 * kib, 64 * kib, 128 * kib, 256 * kib, 512 * kib, mib, 4 * mib} {
		out = append(out, Case{Group: "whole or by range", Name: inBytes(s), Size: s, Files: 200, Asked: 200, settle: true,
			Peers: []string{"plyfs-range", "plyfs-copy"}, change: writeAt(s/2, 1)})
	}
	return out
}

func inBytes(n int64) string { return sample.FormatBytes(float64(n)) }

func chmod(path string) error { return os.Chmod(path, 0o600) }

func truncateOpen(path string) error { return os.WriteFile(path, nil, 0o644) }

func truncateTo(size int64) func(string) error {
	return func(path string) error { return os.Truncate(path, size) }
}

// chownTree is chown -R of everything in dir that is the case's.
func chownTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == filepath.Join(dir, strangers) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		return unix.Lchown(path, 1000, 1000)
	})
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
