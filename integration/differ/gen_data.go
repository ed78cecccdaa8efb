package differ

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// hot is a file that one thing after another is done to: what is half copied up shows its faults
// only when it is cut, grown, written and read again. It is one with several blocks, if there is one.
func (g *generator) hot() string {
	if g.favourite != "" && g.r.IntN(6) != 0 && g.sizeOf(g.favourite) > 0 {
		return g.favourite
	}
	g.favourite = ""
	for range 6 {
		if len(g.files) == 0 {
			break
		}
		p := g.pick(g.files)
		if !g.special[p] && g.sizeOf(p) > 4096 {
			g.favourite = p
			return p
		}
	}
	return g.file()
}

// sizeOf is that of a regular file, 0 of anything else.
func (g *generator) sizeOf(p string) int64 {
	st, err := g.v.t.lstat(p)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0
	}
	return st.Size
}

// offset is one in a file, on a block's edge or beside it in one of three, or somewhat behind its end.
func (g *generator) offset(p string) int {
	off := g.r.IntN(int(min(g.sizeOf(p), 1<<20)) + 6000)
	if g.r.IntN(3) == 0 {
		off = max((off+2048)&^4095+g.r.IntN(3)-1, 0)
	}
	return off
}

// data makes up an operation on the file that is hot.
func (g *generator) data() Op {
	r, p := g.r, g.hot()
	switch n := r.IntN(100); {
	case n < 20:
		return op("write", p, g.offset(p), 1+r.IntN(5000), g.seed())
	case n < 38:
		return op("trunc", p, g.offset(p))
	case n < 41:
		return op("append", p, 1+r.IntN(5000), g.seed())
	case n < 48:
		return op([]string{"punch", "zero", "alloc"}[r.IntN(3)], p, g.offset(p), 1+r.IntN(9000))
	case n < 51:
		q := g.file()
		return op("copy", p, q, g.offset(p), r.IntN(9000), r.IntN(9000))
	case n < 53:
		q := g.file()
		return op("copy", q, p, r.IntN(5000), g.offset(p), r.IntN(9000))
	case n < 60:
		return op("chmod", p, g.pick([]string{"0644", "0600", "0444", "04755"}))
	case n < 64:
		return op("chown", p, 1000+r.IntN(3), r.IntN(3))
	case n < 67:
		return op("utimens", p, 1000000+r.IntN(100))
	case n < 70:
		return op("setx", p, g.attr(), fmt.Sprint("h", g.seed()))
	case n < 74:
		q := g.fresh()
		g.favourite = q
		return op("rename", p, q)
	case n < 77:
		return g.link(p)
	case n < 79:
		return op("rename", p, g.any(), "exchange")
	case n < 82:
		return op("open", g.r.IntN(4), p, g.pick([]string{"r", "w", "rw"}))
	case n < 85:
		return op("fread", g.slot(), g.offset(p), r.IntN(9000))
	case n < 87:
		return op("ftrunc", g.slot(), g.offset(p))
	case n < 89:
		return op("fwrite", g.slot(), g.offset(p), 1+r.IntN(5000), g.seed())
	case n < 92:
		return op("stat", p)
	case n < 94:
		return op("holes", p)
	}
	return op("read", p)
}
