package differ

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/plyfs/plyfs/cow/bench/rig"
)

// Finding is a difference.
type Finding struct {
	Case *Case
	// Where it showed: the index in Case.Ops, or len(Case.Ops) for the end.
	Step int
	What string
	// Log are the operations with their results.
	Log []string
	// Disk is what the layers hold, marks included.
	Disk string
}

// kind tells findings apart while shrinking: where, and how, without the numbers.
func (f *Finding) kind() string {
	k := f.What
	if where, _, ok := strings.Cut(k, "\n"); ok {
		switch k = where; {
		case strings.Contains(f.What, "readdir and stat differ"):
			k += " readdir"
		case strings.Contains(f.What, "inode number"):
			k += " ino"
		case strings.Contains(f.What, "same inode"):
			k += " same"
		}
		k += f.late()
		// The same may show at the end or earlier.
		return k[strings.Index(k, ": ")+1:]
	}
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, k)
}

// late says who has a time of change from before the operations where the other has one from during them.
func (f *Finding) late() string {
	rest := map[string]string{} // of a line but for the time, and what it was
	for line := range strings.Lines(f.What) {
		text, who, _ := strings.Cut(strings.TrimSpace(line), "   <- ")
		head, tail, ok := strings.Cut(text, " mtime=")
		if !ok {
			continue
		}
		when, tail, _ := strings.Cut(tail, " ")
		if was, ok := rest[head+tail]; ok && was != when {
			if when == "now" {
				return "late: " + who
			}
			return "early: " + who
		}
		rest[head+tail] = when
	}
	return ""
}

// next gives the operation for a step, false at the end. It sees the kernel's view.
type next func(step int, v *view) (Op, bool)

func listed(ops []Op) next {
	return func(step int, _ *view) (Op, bool) {
		if step >= len(ops) {
			return Op{}, false
		}
		return ops[step], true
	}
}

// Run runs a case in a new directory below parent and returns what differs; nil if nothing does.
// The error says that the case could not be run.
func Run(parent string, c *Case) (*Finding, error) {
	layers := make([]next, len(c.Layers))
	for i, l := range c.Layers {
		layers[i] = listed(l)
	}
	return run(parent, &Case{Variant: c.Variant, On: c.On, Fuse: c.Fuse}, layers, listed(c.Ops))
}

// run makes the layers and runs the operations, which it enters into c as they come.
func run(parent string, c *Case, layers []next, ops next) (*Finding, error) {
	parent, err := place(parent, c.on())
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, "case-")
	if err != nil {
		return nil, err
	}
	s, err := newStack(dir, c)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	defer s.close()
	for _, n := range layers {
		c.Layers = append(c.Layers, nil)
		made := &c.Layers[len(c.Layers)-1]
		err := s.layer(func(v *view) {
			for {
				o, ok := n(len(*made), v)
				if !ok {
					return
				}
				*made = append(*made, o)
				v.run(forKernel(o))
			}
		})
		if err != nil {
			return nil, err
		}
	}
	if err := s.mount(); err != nil {
		return nil, err
	}
	f := s.compare(ops)
	if f != nil {
		f.Disk = s.disk()
	}
	return f, nil
}

// compare runs the operations on both sides, then compares the trees.
func (s *stack) compare(ops next) *Finding {
	c := s.c
	f := &Finding{Case: c}
	for {
		o, ok := ops(len(c.Ops), s.leader())
		if !ok {
			break
		}
		c.Ops = append(c.Ops, o)
		f.Step = len(c.Ops) - 1
		switch o.Name {
		case "remount", "swap":
			if f.What = s.again(o.Name == "swap"); f.What != "" {
				f.What = o.Name + ": " + f.What
				return f
			}
			f.Log = append(f.Log, o.Name)
			continue
		}
		if s.v.graft {
			o = forKernel(o)
		}
		got := s.plyfs.view.run(o)
		if s.v.alone {
			f.Log = append(f.Log, fmt.Sprintf("%s = %s", o, got))
			continue
		}
		want := s.kernel.view.run(forKernel(o))
		f.Log = append(f.Log, fmt.Sprintf("%s = %s", o, want))
		if want != got && !s.meant(o, want, got) {
			f.What = fmt.Sprintf("%s: kernel %s, plyfs %s", o.Name, want, got)
			return f
		}
	}
	f.Step = len(c.Ops)
	for _, how := range []struct {
		name string
		swap bool
	}{{"end, remount", false}, {"end, swap", true}} {
		if f.What = s.again(how.swap); f.What != "" {
			f.What = how.name + ": " + f.What
			return f
		}
	}
	if err := s.unmount(); err != nil {
		f.What = "unmount: " + err.Error()
		return f
	}
	return nil
}

// place is the directory for cases on a filesystem: one of its own for all of them, made when
// the first needs it, which goes with parent.
func place(parent, kind string) (string, error) {
	if kind == "" || kind == "tmpfs" {
		return parent, nil
	}
	dir := filepath.Join(parent, kind)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	im, err := rig.NewImage(kind, parent, 512<<20)
	if err != nil {
		return "", err
	}
	return im.Dir, nil
}

// leader is the view that operations are made up for.
func (s *stack) leader() *view {
	if s.v.alone {
		return &s.plyfs.view
	}
	return &s.kernel.view
}

// forKernel gives the operation to run on the kernel's overlayfs where that lacks one:
// RENAME_WHITEOUT, which in a union looks like a rename.
func forKernel(o Op) Op {
	if n := len(o.Args); n > 2 && o.Args[n-1] == "whiteout" && (o.Name == "rename" || o.Name == "as" && o.Args[2] == "rename") {
		return Op{Name: o.Name, Args: o.Args[:n-1]}
	}
	return o
}

// again compares the trees, mounts anew, with swap each the other's upper, and compares
// again. It says what differs.
func (s *stack) again(swap bool) string {
	if s.v.alone {
		return s.reread()
	}
	k, p := s.kernel.view.Dump(), s.plyfs.view.Dump()
	if d := diff("kernel", k.Lines, "plyfs", p.Lines); d != "" {
		return "before:\n" + d
	}
	if err := s.unmount(); err != nil {
		return err.Error()
	}
	if swap {
		s.swap()
	}
	if err := s.mount(); err != nil {
		return err.Error()
	}
	if swap {
		s.odd = k.odd
	}
	s.plyfs.view.odd = s.odd
	k2, p2 := s.kernel.view.Dump(), s.plyfs.view.Dump()
	if d := diff("before", k.Lines, "kernel after", k2.Lines); d != "" {
		return "kernel:\n" + d
	}
	if d := diff("before", p.Lines, "plyfs after", p2.Lines); d != "" {
		return "plyfs:\n" + d
	}
	before := p.Inos
	if swap {
		// Who has the other's upper must show what the kernel showed of it.
		before = k.Inos
		if s.v.mixed || s.v.graft || len(k.odd) > 0 {
			return "" // inode numbers are each one's own when filesystems are mixed, and those of a graft marked as such
		}
		s.dropOwnNumbers(before)
	}
	s.dropWithoutOrigin(before, p.Types)
	s.dropParted(before, p.Types, p2.Inos)
	if d := diffInos(before, p2.Inos); d != "" {
		return "plyfs inodes:\n" + d
	}
	return ""
}
