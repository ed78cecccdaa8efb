package bench

import (
	"fmt"
	"slices"
	"strings"
)

// Patterns are the ways in which a [Custom] case changes a file.
var Patterns = []string{"overwrite", "append", "random", "truncate", "O_TRUNC", "chmod", "chown"}

// Custom asks for cases of one's own instead of the sweep: one for each combination of what the lists
// have, for as far as they matter. Empty ones stand for one value: that of a file of 1 MiB in one layer, of which the first byte is overwritten.
type Custom struct {
	Patterns []string // of Patterns
	Sizes    []int64  // bytes of a file
	Asked    []int64  // bytes that are written; of random, in blocks of 4 KiB
	Offsets  []int64  // where; of truncate, what is left
	Depths   []int    // lower layers
	Jobs     []int    // files changed at once
	Files    int      // 0 for as many as are changed at once
	Sparse   bool     // the files are holes, but for a block at each end
	Cold     bool     // page caches are dropped first
	Apart    bool     // the layers are on another filesystem than the upper
}

// cases returns the combinations, those of one line in the plots one after the other. The error names what makes no sense.
func (u *Custom) cases() ([]Case, error) {
	for _, n := range u.Depths {
		if n < 1 {
			return nil, wrong("layers", "%d: want 1 or more", n)
		}
	}
	most := 1
	for _, n := range u.Jobs {
		if most = max(most, n); n < 1 {
			return nil, wrong("jobs", "%d: want 1 or more", n)
		}
	}
	if u.Files < 0 || u.Files > 0 && u.Files < most {
		return nil, wrong("files", "%d: want %d or more, as many as are changed at once", u.Files, most)
	}
	for _, n := range u.Asked {
		if n < 1 {
			return nil, wrong("write", "%d: want 1 or more", n)
		}
	}
	for _, n := range u.Offsets {
		if n < 0 {
			return nil, wrong("offset", "%d: want 0 or more", n)
		}
	}
	for _, n := range u.Sizes {
		if n < 0 {
			return nil, wrong("size", "%d: want 0 or more", n)
		}
		if u.Sparse && n < 8*kib {
			return nil, wrong("size", "%s: a sparse file has at least 8 KiB", inBytes(n))
		}
	}
	var out []Case
	seen := map[string]bool{} // not everything matters to every pattern
	for _, p := range or(u.Patterns, "overwrite") {
		if !slices.Contains(Patterns, p) {
			return nil, wrong("pattern", "unknown: %q; there are %s", p, strings.Join(Patterns, ", "))
		}
		for _, asked := range or(u.Asked, 1) {
			for _, off := range or(u.Offsets, 0) {
				for _, depth := range or(u.Depths, 1) {
					for _, jobs := range or(u.Jobs, 1) {
						for _, size := range or(u.Sizes, mib) {
							c, err := u.one(p, size, asked, off, depth, jobs)
							if err != nil {
								return nil, err
							}
							if name := c.Group + ": " + c.Name; !seen[name] {
								seen[name] = true
								out = append(out, c)
							}
						}
					}
				}
			}
		}
	}
	return out, nil
}

func or[T any](list []T, one T) []T {
	if len(list) == 0 {
		return []T{one}
	}
	return list
}

// one is a case. What is the same for all files of a line in the plots is its group.
func (u *Custom) one(pattern string, size, asked, off int64, depth, jobs int) (Case, error) {
	c := Case{Group: pattern, Size: size, Depth: depth, Jobs: jobs, Files: max(u.Files, jobs), Cold: u.Cold, Apart: u.Apart,
		sparse: u.Sparse, settle: true}
	each := int64(0)
	switch pattern {
	case "overwrite":
		if off+asked > size {
			return c, wrong("write", "overwrite: %s at %d are not in a file of %s", inBytes(asked), off, inBytes(size))
		}
		each, c.change = asked, writeAt(off, asked)
		c.Group = fmt.Sprintf("overwrite %s at %d", inBytes(asked), off)
	case "append":
		each, c.change = asked, writeAt(size, asked)
		c.Group = "append " + inBytes(asked)
	case "random":
		n := (asked + 4*kib - 1) / (4 * kib)
		if size < 4*kib {
			return c, wrong("size", "random: a file of %s has no block of 4 KiB", inBytes(size))
		}
		each, c.change = n*4*kib, randomWrites(size, int(n))
		c.Group = "random writes of 4 KiB, " + inBytes(each)
	case "truncate":
		c.change = truncateTo(off)
		c.Group = "truncate to " + inBytes(off)
	case "O_TRUNC":
		c.change = truncateOpen
	case "chmod":
		c.change = chmod
	case "chown":
		c.all = chownTree
		c.Group = "chown -R"
	}
	c.Asked = each * int64(c.Files)
	for _, part := range []struct {
		so   bool
		text string
	}{{c.Files > 1, fmt.Sprintf("%d files", c.Files)}, {jobs > 1, fmt.Sprintf("%d at once", jobs)}, {depth > 1, fmt.Sprintf("%d layers", depth)},
		{u.Sparse, "sparse"}, {u.Cold, "cold"}, {u.Apart, "layers on another filesystem"}} {
		if part.so {
			c.Group += ", " + part.text
		}
	}
	c.Name = inBytes(size)
	return c, nil
}
