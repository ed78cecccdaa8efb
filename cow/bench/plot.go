package bench

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/plyfs/plyfs/cow/bench/sample"
)

// figure is a plot: name is that of its file.
type figure struct{ name, svg string }

// plots draws what the report has enough results for.
func (rep *Report) plots() ([]figure, error) {
	var out []figure
	var errs []error
	add := func(name string, c chart) {
		if c != nil {
			s, err := c.svg()
			out, errs = append(out, figure{name, s}), append(errs, err)
		}
	}
	curves, first := rep.shown()
	for _, g := range curves {
		var lines []series
		for _, peer := range rep.Peers {
			colour := rep.colour(peer)
			lines = append(lines, series{peer, colour, colour >= len(palette), rep.points(g, peer, func(r *Result) float64 { return r.Latency.Median })})
		}
		add(strings.ReplaceAll(strings.ToLower(g), " ", "-"), curve("First change of a lower file: "+g, lines))
	}
	add("threshold", rep.thresholdPlot())
	for _, b := range []struct {
		name, title, unit string
		value             func(*Result) float64
		none              string // instead of a bar where there is no value; empty to leave the peer out
	}{
		{"largest", "Largest file: " + first, "milliseconds, logarithmic", func(r *Result) float64 { return r.Latency.Median / 1e6 }, ""},
		{"waiting", "Somebody else opens another file meanwhile: longest wait", "milliseconds, logarithmic",
			func(r *Result) float64 { return r.Collateral.Median / 1e6 }, "nobody came by before it was done"},
		{"space", "Space the upper takes for it", "KiB, logarithmic", func(r *Result) float64 { return r.Upper.Median / 1024 }, ""},
	} {
		add(b.name, rep.bars(first, b.title, b.unit, b.none, b.value))
	}
	return out, errors.Join(errs...)
}

// shown returns the groups of which there are curves, and the one of whose largest file there are bars: those of
// the sweep, or of cases of one's own.
func (rep *Report) shown() (curves []string, bars string) {
	curves = []string{"write 1 byte", "append 1 byte", "chmod", "O_TRUNC"}
	has := func(g string) bool {
		return slices.ContainsFunc(rep.Results, func(r *Result) bool { return r.Case.Group == g })
	}
	if len(rep.Results) == 0 || slices.ContainsFunc(curves, has) {
		return curves, curves[0]
	}
	curves = nil
	for _, r := range rep.Results {
		if !slices.Contains(curves, r.Case.Group) {
			curves = append(curves, r.Case.Group)
		}
	}
	return curves, curves[0]
}

// colour is that of a peer in all plots; after eight peers they begin again, dashed.
func (rep *Report) colour(peer string) int { return max(slices.Index(rep.Peers, peer), 0) }

// series is a line of a plot against the size of the file.
type series struct {
	name   string
	colour int
	dashed bool
	points []point
}

type point struct{ x, y float64 }

// points returns the values of a group for a peer. Those that a logarithmic axis has no place for are left out.
func (rep *Report) points(group, peer string, value func(*Result) float64) []point {
	var pts []point
	for _, r := range rep.Results {
		if r.Case.Group == group && r.Peer == peer && r.Case.Size > 0 && r.Latency.N > 0 && value(r) > 0 {
			pts = append(pts, point{float64(r.Case.Size), value(r)})
		}
	}
	return pts
}

// curve plots times against the size of the file; nil when no line has two points.
func curve(title string, lines []series) chart {
	c := &curves{title: title,
		x: axis{label: "size of the file", base: 4, format: sample.FormatBytes},
		y: axis{label: "time", base: 10, format: sample.FormatDuration}}
	for _, l := range lines {
		if len(l.points) < 2 {
			continue
		}
		for _, p := range l.points {
			c.x.include(p.x)
			c.y.include(p.y)
		}
		c.lines = append(c.lines, l)
	}
	if len(c.lines) == 0 {
		return nil
	}
	if c.x.high/c.x.low > 1<<16 {
		c.x.base = 16
	}
	// Room for the legend: a line of it is a twentieth of the plot.
	room := float64(len(c.lines)) / 20
	c.y.high *= math.Pow(c.y.high/c.y.low, room/max(1-room, 0.3))
	return c
}

// thresholdPlot shows the two ways to copy a file up, with and without what completing it costs.
func (rep *Report) thresholdPlot() chart {
	const group = "whole or by range"
	var lines []series
	for i, way := range []struct{ peer, name string }{{"plyfs-copy", "copied whole"}, {"plyfs-range", "by range"}} {
		for _, sum := range []bool{false, true} {
			name := way.name
			if sum {
				name += ", and completed later"
			}
			lines = append(lines, series{name, 4 + i, sum, rep.points(group, way.peer, func(r *Result) float64 {
				if !sum {
					return r.Latency.Median
				}
				if r.Settle.N == 0 {
					return 0
				}
				return r.Latency.Median + r.Settle.Median
			})})
		}
	}
	return curve("One byte written: copy the whole file, or leave it unfinished", lines)
}

// bars plots one value per peer for the largest file of a group, none for those without; nil if there is no value.
func (rep *Report) bars(group, title, unit, none string, value func(*Result) float64) chart {
	largest := int64(0)
	for _, r := range rep.Results {
		if r.Case.Group == group {
			largest = max(largest, r.Case.Size)
		}
	}
	c := &barChart{title: title, x: axis{label: unit, base: 10, format: func(v float64) string { return fmt.Sprintf("%g", v) }}}
	for _, r := range rep.Results {
		if r.Case.Group != group || r.Case.Size != largest || r.Latency.N == 0 {
			continue
		}
		b := bar{name: r.Peer, colour: rep.colour(r.Peer), value: max(value(r), 0)}
		if b.value > 0 {
			c.x.include(b.value)
		} else if b.note = none; none == "" {
			continue
		}
		c.bars = append(c.bars, b)
	}
	if c.x.low == 0 {
		return nil
	}
	// A bar of an axis that has no zero begins at the power of ten below all.
	c.x.low = math.Pow(10, math.Ceil(math.Log10(c.x.low))-1)
	c.x.high = max(c.x.high, c.x.low*10)
	return c
}
