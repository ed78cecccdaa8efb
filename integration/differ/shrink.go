package differ

import "time"

// Shrink looks for a smaller case with a finding of the same kind, for as long as
// patience lasts.
func Shrink(parent string, f *Finding, patience time.Duration) *Finding {
	deadline := time.Now().Add(patience)
	best := f
	// try runs a smaller case and keeps it if it still shows the difference.
	try := func(c *Case) bool {
		if time.Now().After(deadline) {
			return false
		}
		g, err := Run(parent, c)
		if err != nil || g == nil || g.kind() != best.kind() {
			return false
		}
		best = g
		return true
	}
	for again := true; again && time.Now().Before(deadline); {
		again = false
		// What comes after the difference does not matter.
		if n := best.Step + 1; n < len(best.Case.Ops) {
			best.Case.Ops = best.Case.Ops[:n]
		}
		if c := clone(best.Case); cutOps(&c.Ops, func() bool { return try(c) }) {
			again = true
		}
		for i := 0; i < len(best.Case.Layers); i++ {
			c := clone(best.Case)
			if len(c.Layers) > 1 {
				c.Layers = append(c.Layers[:i:i], c.Layers[i+1:]...)
				if try(c) {
					again = true
					i--
					continue
				}
			}
			c = clone(best.Case)
			if len(c.Layers[i]) == 0 {
				continue
			}
			if cutOps(&c.Layers[i], func() bool { return try(c) }) {
				again = true
			}
		}
	}
	return best
}

// cutOps takes away as many operations as it can, in halves first, while still says
// that the difference shows. It reports whether any went.
func cutOps(ops *[]Op, still func() bool) bool {
	any := false
	for size := max(len(*ops)/2, 1); size > 0; size /= 2 {
		for at := 0; at < len(*ops); {
			old := *ops
			end := min(at+size, len(old))
			*ops = append(append([]Op(nil), old[:at]...), old[end:]...)
			if still() {
				any = true
				continue
			}
			*ops = old
			at += size
		}
	}
	return any
}

func clone(c *Case) *Case {
	d := &Case{Variant: c.Variant, On: c.On, Fuse: c.Fuse, Ops: append([]Op(nil), c.Ops...)}
	for _, l := range c.Layers {
		d.Layers = append(d.Layers, append([]Op(nil), l...))
	}
	return d
}
