package differ

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// holding makes up an operation on a file that is open, by a descriptor of it or by one of its names: the names may come to
// stand for something else than the descriptors do.
func (g *generator) holding() Op {
	r, p := g.r, g.heldName()
	if len(g.v.slots) < 2 {
		return op("open", r.IntN(4), p, g.pick([]string{"r", "r", "r", "w", "rw", "a"}))
	}
	switch n := r.IntN(100); {
	case n < 14:
		return op("open", r.IntN(4), p, g.pick([]string{"r", "r", "r", "w", "rw", "a", "t"}))
	case n < 20:
		return op("close", g.slot())
	case n < 26:
		return op("fread", g.slot(), r.IntN(300), r.IntN(5000))
	case n < 32:
		return op("fwrite", g.slot(), r.IntN(300), g.size(), g.seed())
	case n < 38:
		return op("fstat", g.slot())
	case n < 48:
		return op("stat", p)
	case n < 53:
		return op("read", p)
	case n < 60:
		return op("flink", g.slot(), g.fresh())
	case n < 65:
		return g.link(p)
	case n < 71:
		return op("rename", p, g.fresh())
	case n < 74:
		return op("rename", p, g.heldName(), g.pick([]string{"exchange", "noreplace", "whiteout"}))
	case n < 77:
		return op("unlink", p)
	case n < 79:
		return op("put", p, g.size(), g.seed())
	case n < 83:
		return op("write", p, r.IntN(300), g.size(), g.seed())
	case n < 84:
		return op("append", p, g.size(), g.seed())
	case n < 85:
		return op("trunc", p, g.size())
	case n < 87:
		return op("mwrite", p, r.IntN(300), 1+r.IntN(300), g.seed())
	case n < 89:
		return op("ftrunc", g.slot(), g.size())
	case n < 91:
		return op("chmod", p, g.mode())
	case n < 93:
		return op("fchmod", g.slot(), g.mode())
	case n < 95:
		return op("utime", p, g.moment(), g.moment())
	case n < 96:
		return op("futime", g.slot(), g.moment(), g.moment())
	case n < 97:
		return op("fsetx", g.slot(), g.attr(), fmt.Sprint("w", g.seed()))
	case n < 98:
		return op("setx", p, g.attr(), fmt.Sprint("w", g.seed()))
	}
	return op("ls", filepath.Dir(p))
}

// heldName is a name of a file that is open, if there is one.
func (g *generator) heldName() string {
	open := map[uint64]bool{}
	for _, h := range g.v.slots {
		if st, err := h.stat(); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			open[st.Ino] = true
		}
	}
	var list []string
	for _, p := range g.files {
		if st, err := g.v.t.lstat(p); err == nil && open[st.Ino] {
			list = append(list, p)
		}
	}
	if len(list) == 0 || g.r.IntN(10) == 0 {
		return g.file()
	}
	return g.pick(list)
}
