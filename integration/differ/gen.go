package differ

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// generator makes up operations that fit the tree there is, for the most part.
type generator struct {
	r       *rand.Rand
	files   []string        // paths of the view that are no directories
	dirs    []string        // and that are, "." first
	big     bool            // files of several blocks
	user    bool            // marks in user. attributes
	special map[string]bool // of files: those that are not regular
	private bool            // attributes that look like marks are set too
	// often is how many of a hundred operations are on the data of the favourite, see hot.
	often     int
	favourite string
	odd       int   // and on what is rare
	held      int   // and on what is open
	everybody int   // and not by root with the usual umask
	users     bool  // but by others, too
	flags     bool  // chattr
	v         *view // that was scanned
}

// scan reads which paths there are.
func (g *generator) scan(v *view) {
	g.v = v
	g.special = map[string]bool{}
	g.files, g.dirs = g.files[:0], append(g.dirs[:0], ".")
	for i := 0; i < len(g.dirs); i++ {
		ents, _ := v.entries(g.dirs[i])
		for _, e := range ents {
			if e.name == "." || e.name == ".." {
				continue
			}
			p := filepath.Join(g.dirs[i], e.name)
			if e.typ == unix.DT_DIR {
				g.dirs = append(g.dirs, p)
			} else {
				g.special[p] = e.typ != unix.DT_REG
				g.files = append(g.files, p)
			}
		}
	}
}

func (g *generator) pick(list []string) string { return list[g.r.IntN(len(list))] }

var names = []string{"a", "b", "c", "d", "e"}

// fresh is a path in some directory that may or may not exist.
func (g *generator) fresh() string {
	d := g.pick(g.dirs)
	for range 3 { // not too deep
		if len(d) <= 5 {
			break
		}
		d = g.pick(g.dirs)
	}
	return filepath.Join(d, g.pick(names))
}

// file is a path of a file, rarely of something else.
func (g *generator) file() string {
	if len(g.files) == 0 || g.r.IntN(20) == 0 {
		return g.any()
	}
	return g.pick(g.files)
}

func (g *generator) dir() string {
	if g.r.IntN(20) == 0 {
		return g.any()
	}
	return g.pick(g.dirs)
}

// inner is a directory other than the root, if there is one.
func (g *generator) inner() string {
	if len(g.dirs) > 1 {
		return g.pick(g.dirs[1:])
	}
	return g.fresh()
}

func (g *generator) any() string {
	switch {
	case g.r.IntN(10) == 0:
		return g.fresh()
	case len(g.files) > 0 && g.r.IntN(2) == 0:
		return g.pick(g.files)
	}
	return g.inner()
}

func (g *generator) size() int {
	switch n := g.r.IntN(10); {
	case n < 2:
		return 0
	case n < 6 || !g.big && n < 9:
		return g.r.IntN(200)
	case g.big:
		return g.r.IntN(60000)
	}
	return g.r.IntN(9000)
}

func (g *generator) seed() int { return g.r.IntN(1000) }

func (g *generator) mode() string {
	modes := []string{"0644", "0600", "0755", "0444", "0000", "04755", "02755", "01755", "02644"}
	return g.pick(modes)
}

func (g *generator) attr() string {
	all := []string{"user.x", "user.y", "trusted.t", "security.s"}
	if g.private {
		all = append(all, "trusted.overlay.opaque", "trusted.overlay.overlay.z", "user.overlay.w")
	}
	return g.pick(all)
}

// change makes up an operation that changes something.
func (g *generator) change() Op {
	r := g.r
	switch n := r.IntN(100); {
	case n < 8:
		return op("put", g.fresh(), g.size(), g.seed())
	case n < 12:
		return op("create", g.fresh(), g.mode())
	case n < 18:
		return op("write", g.file(), r.IntN(10000), g.size(), g.seed())
	case n < 20:
		return op("append", g.file(), g.size(), g.seed())
	case n < 23:
		return op("trunc", g.file(), g.size())
	case n < 24:
		return op([]string{"punch", "zero", "alloc"}[r.IntN(3)], g.file(), r.IntN(10000), 1+r.IntN(10000))
	case n < 25:
		return op("copy", g.file(), g.file(), r.IntN(5000), r.IntN(5000), r.IntN(9000))
	case n < 33:
		return op("mkdir", g.fresh(), g.mode())
	case n < 36:
		return op("rmdir", g.inner())
	case n < 42:
		return op("unlink", g.file())
	case n < 46:
		return op("rmtree", g.any())
	case n < 56:
		return op("rename", g.inner(), g.fresh())
	case n < 64:
		return op("rename", g.any(), g.any())
	case n < 68:
		return op("rename", g.any(), g.any(), "exchange")
	case n < 71:
		return op("rename", g.any(), g.fresh(), "noreplace")
	case n < 73:
		return op("rename", g.any(), g.fresh(), "whiteout")
	case n < 80:
		return g.link(g.file())
	case n < 83:
		return op("symlink", g.pick([]string{"z", "../z", "/nowhere", "z/y"}), g.fresh())
	case n < 85:
		return op("mknod", g.fresh(), g.pick([]string{"fifo", "sock", "chr", "white"}))
	case n < 86:
		return op("tmpfile", g.dir(), g.fresh(), g.size(), g.seed())
	case n < 90:
		return op("chmod", g.any(), g.mode())
	case n < 92:
		return op("chown", g.any(), 1000+r.IntN(3), r.IntN(3))
	case n < 94:
		return op("utimens", g.any(), 1000000+r.IntN(100))
	case n < 97:
		return op("setx", g.any(), g.attr(), fmt.Sprint("v", g.seed()))
	case n < 98:
		return op("rmx", g.any(), g.attr())
	}
	return op("put", g.any(), g.size(), g.seed())
}

// look makes up an operation that changes nothing, or works on an open file.
func (g *generator) look() Op {
	r := g.r
	switch n := r.IntN(100); {
	case n < 15:
		return op("ls", g.dir())
	case n < 35:
		return op("stat", g.any())
	case n < 45:
		return op("read", g.file())
	case n < 46:
		return op("readlink", g.file())
	case n < 48:
		return op("holes", g.file())
	case n < 52:
		return op("listx", g.any())
	case n < 55:
		return op("getx", g.any(), g.attr())
	case n < 66:
		return op("open", g.r.IntN(4), g.file(), g.pick([]string{"r", "w", "rw"}))
	case n < 69:
		return op("open", g.r.IntN(4), g.dir(), "r")
	case n < 72:
		return op("close", g.slot())
	case n < 77:
		return op("fread", g.slot(), r.IntN(5000), r.IntN(5000))
	case n < 82:
		return op("fwrite", g.slot(), r.IntN(9000), g.size(), g.seed())
	case n < 84:
		return op("ftrunc", g.slot(), g.size())
	case n < 90:
		return op("fstat", g.slot())
	case n < 92:
		return op("fchmod", g.slot(), g.mode())
	case n < 94:
		return op("flink", g.slot(), g.fresh())
	case n < 97:
		return op("fls", g.slot())
	case n < 98:
		return op("fsync", g.slot())
	}
	return op("fsetx", g.slot(), g.attr(), fmt.Sprint("w", g.seed()))
}

// link makes up another name of p.
func (g *generator) link(p string) Op {
	if g.user && g.special[p] {
		// The kernel cannot copy up a linked one, and then not mount the upper.
		return op("stat", p)
	}
	return op("link", p, g.fresh())
}

// layer returns operations that make a layer.
func (g *generator) layer(count int) next {
	return func(step int, v *view) (Op, bool) {
		if step >= count {
			return Op{}, false
		}
		g.scan(v)
		if o, ok := g.open(step); ok {
			return o, true
		}
		if g.r.IntN(200) < g.often { // seldom enough that there are files
			return g.data(), true
		}
		if g.r.IntN(200) < g.odd {
			return g.somebody(g.rare()), true
		}
		return g.somebody(g.change()), true
	}
}

// ops returns operations to compare.
func (g *generator) ops(count int) next {
	return func(step int, v *view) (Op, bool) {
		if step >= count {
			return Op{}, false
		}
		g.scan(v)
		if o, ok := g.open(step); ok {
			return o, true
		}
		switch n := g.r.IntN(100); {
		case n < 1:
			return op("remount"), true
		case n < 2:
			return op("swap"), true
		case g.r.IntN(100) < g.often:
			return g.somebody(g.data()), true
		case g.r.IntN(100) < g.held:
			return g.somebody(g.holding()), true
		case g.r.IntN(100) < g.odd:
			return g.somebody(g.rare()), true
		case n < 60:
			return g.somebody(g.change()), true
		}
		return g.somebody(g.look()), true
	}
}

// Only keeps made-up cases to one kind; what is empty may be any.
type Only struct {
	Variant string // the way of mounting
	Via     string // "core", the union alone, or "fuse", a real mount
	On      string // the layers' filesystem, as in [Case]
}

// Fuzz makes up the case of a seed and runs it.
func Fuzz(parent string, seed uint64, only Only) (*Finding, error) {
	r := rand.New(rand.NewPCG(seed, 0))
	all := []string{"default", "default", "default", "uncached", "disk", "range", "range", "metacopy", "metacopy", "userxattr", "noindex", "mixed", "moves", "bare", "shared",
		"passthrough", "writeback", "range-writeback", "range-pass", "range-shared", "range-metacopy", "metacopy-pass", "noindex-pass", "userxattr-pass", "mixed-pass", "mixed-range", "graft"}
	variant := all[r.IntN(len(all))]
	if only.Variant != "" {
		variant = only.Variant
	}
	v := variants[variant]
	if v == nil {
		return nil, fmt.Errorf("no variant %q", variant)
	}
	fuse := r.IntN(4) != 0 || v.mode != ""
	if only.Via != "" {
		fuse = only.Via == "fuse"
	}
	on := ""
	if n := r.IntN(16); n < 4 {
		on = []string{"xfs", "btrfs", "tmpfs", "disk"}[n]
	}
	if only.On != "" {
		on = only.On
	}
	partly := strings.Contains(variant, "range") || strings.Contains(variant, "metacopy") // files are
	g := &generator{r: r, big: partly, user: v.config.UserXattr == overlay.On, private: r.IntN(4) == 0, often: 5}
	if partly {
		g.often = 60
	}
	g.odd = []int{0, 10, 40}[r.IntN(3)]
	g.held = []int{0, 0, 0, 60}[r.IntN(4)]
	g.everybody = []int{0, 10, 50}[r.IntN(3)]
	g.users = fuse
	// With writeback it is the flush that fails.
	g.flags = r.IntN(4) == 0 && !strings.Contains(variant, "writeback")
	layers := make([]next, 1+r.IntN(4))
	for i := range layers {
		layers[i] = g.layer(5 + r.IntN(30))
	}
	return run(parent, &Case{Variant: variant, On: on, Fuse: fuse}, layers, g.ops(10+r.IntN(90)))
}
