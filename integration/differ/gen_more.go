package differ

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

var lists = []string{"u=7,u1001=6,g=4,m=6,o=0", "u=6,g=4,o=4", "u=7,u1000=0,g=7,g2=5,m=7,o=5", "u=6,g=6,g1=6,m=4,o=0"}

// rare makes up an operation of a kind that programs seldom use.
func (g *generator) rare() Op {
	r := g.r
	if g.flags && r.IntN(5) == 0 {
		if r.IntN(3) == 0 {
			return op("flags", g.any())
		}
		return op("chattr", g.any(), g.pick([]string{"i", "a", "A", "-", "-", "-", "ia"}))
	}
	switch n := r.IntN(100); {
	case n < 8:
		return op([]string{"kzero", "kalloc"}[r.IntN(2)], g.file(), r.IntN(12000), 1+r.IntN(9000))
	case n < 16:
		return op("dwrite", g.file(), r.IntN(3), 1+r.IntN(2), g.seed())
	case n < 22:
		return op("dread", g.file(), r.IntN(3), 1+r.IntN(2))
	case n < 30:
		return op("mwrite", g.file(), r.IntN(9000), 1+r.IntN(5000), g.seed())
	case n < 36:
		return op("utime", g.any(), g.moment(), g.moment())
	case n < 44:
		return op("acl", g.any(), g.pick(lists))
	case n < 50:
		return op("dacl", g.dir(), g.pick(lists))
	case n < 52:
		return op("rmacl", g.any(), g.pick([]string{"acl", "dacl"}))
	case n < 56:
		return op("setx", g.any(), g.attr(), fmt.Sprint("x", g.seed()), g.pick([]string{"create", "replace"}))
	case n < 62:
		if r.IntN(4) == 0 {
			return op("topen", g.r.IntN(4), g.dir(), "x")
		}
		return op("topen", g.r.IntN(4), g.dir())
	case n < 66:
		return op("open", g.r.IntN(4), g.file(), g.pick([]string{"a", "t"}))
	case n < 68:
		return op("open", g.r.IntN(4), g.fresh(), "c")
	case n < 74:
		return op([]string{"fpunch", "fzero", "falloc"}[r.IntN(3)], g.slot(), r.IntN(9000), 1+r.IntN(9000))
	case n < 77:
		return op("fchown", g.slot(), 1000+r.IntN(3), r.IntN(3))
	case n < 80:
		return op("futime", g.slot(), g.moment(), g.moment())
	case n < 83:
		return op("open", g.r.IntN(4), g.pick(g.dirs), "r")
	case n < 88:
		return op("fdir", g.dirSlot())
	case n < 96:
		return op("fsome", g.dirSlot())
	}
	return op("fend", g.dirSlot())
}

// slot is one with an open file, rarely another.
func (g *generator) slot() string { return g.slotOf(func(handle) bool { return true }) }

// dirSlot is one with a directory.
func (g *generator) dirSlot() string {
	return g.slotOf(func(h handle) bool {
		st, err := h.stat()
		return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
	})
}

func (g *generator) slotOf(good func(handle) bool) string {
	var list []string
	for s, h := range g.v.slots {
		if good(h) {
			list = append(list, s)
		}
	}
	if len(list) == 0 || g.r.IntN(20) == 0 {
		return fmt.Sprint(g.r.IntN(4))
	}
	slices.Sort(list)
	return g.pick(list)
}

func (g *generator) moment() string {
	return g.pick([]string{"now", "omit", fmt.Sprint(2000000 + g.r.IntN(100))})
}

// somebody lets o be done by another user, or with a umask.
func (g *generator) somebody(o Op) Op {
	if g.everybody == 0 || g.r.IntN(100) >= g.everybody || o.Name == "mwrite" {
		return o
	}
	uid := g.r.IntN(4)
	if !g.users || uid == 3 {
		uid = -1000
	}
	return op("as", append([]any{1000 + uid, g.pick([]string{"022", "002", "077", "000"}), o.Name}, anys(o.Args)...)...)
}

func anys(list []string) []any {
	var out []any
	for _, s := range list {
		out = append(out, s)
	}
	return out
}

// open lets everybody into the root, at the start.
func (g *generator) open(step int) (Op, bool) {
	if step > 0 || !g.users {
		return Op{}, false
	}
	return op("chmod", ".", g.pick([]string{"0777", "01777", "02775", "0755"})), true
}
