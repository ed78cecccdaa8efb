package bench

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/plyfs/plyfs/cow/bench/sample"
)

// figure is a plot: name is that of its file.
type figure struct{ name, svg string }

// plots draws what the report has enough results for.
func (rep *Report) plots() ([]figure, error) {
	var out []figure
	add := func(name string, p *plot.Plot, height vg.Length, err error) error {
		if err != nil || p == nil {
			return err
		}
		s, err := svg(p, 16*vg.Centimeter, height)
		out = append(out, figure{name, s})
		return err
	}
	for _, g := range []string{"write 1 byte", "append 1 byte", "chmod", "O_TRUNC"} {
		var lines []series
		for _, peer := range rep.Peers {
			lines = append(lines, series{peer, rep.colour(peer), false, rep.points(g, peer, func(r *Result) float64 { return r.Latency.Median })})
		}
		p, err := curve("First change of a lower file: "+g, lines)
		if err := add(strings.ReplaceAll(strings.ToLower(g), " ", "-"), p, 10*vg.Centimeter, err); err != nil {
			return nil, err
		}
	}
	p, err := rep.thresholdPlot()
	if err := add("threshold", p, 10*vg.Centimeter, err); err != nil {
		return nil, err
	}
	for _, b := range []struct {
		name, title, unit string
		value             func(*Result) float64
	}{
		{"largest", "One byte written to the largest file", "milliseconds, logarithmic", func(r *Result) float64 { return r.Latency.Median / 1e6 }},
		{"waiting", "Somebody else opens another file meanwhile: longest wait", "milliseconds, logarithmic", func(r *Result) float64 { return r.Collateral.Median / 1e6 }},
		{"space", "Space the upper takes for it", "KiB, logarithmic", func(r *Result) float64 { return r.Upper.Median / 1024 }},
	} {
		p, bars, err := rep.bars(b.title, b.unit, b.value)
		if err := add(b.name, p, vg.Length(2+float64(bars)*0.9)*vg.Centimeter, err); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Colours that can be told apart in print and with the common colour blindness (Okabe, Ito).
var palette = []color.RGBA{
	{0, 0, 0, 255}, {230, 159, 0, 255}, {86, 180, 233, 255}, {0, 158, 115, 255},
	{213, 94, 0, 255}, {0, 114, 178, 255}, {204, 121, 167, 255}, {160, 160, 160, 255},
}

// colour is that of a peer in all plots; after eight peers they begin again, dashed.
func (rep *Report) colour(peer string) int { return max(slices.Index(rep.Peers, peer), 0) }

// series is a line of a plot against the size of the file.
type series struct {
	name   string
	colour int
	dashed bool
	points plotter.XYs
}

// points returns the values of a group for a peer. Those that a logarithmic axis has no place for are left out.
func (rep *Report) points(group, peer string, value func(*Result) float64) plotter.XYs {
	var pts plotter.XYs
	for _, r := range rep.Results {
		if r.Case.Group == group && r.Peer == peer && r.Case.Size > 0 && r.Latency.N > 0 && value(r) > 0 {
			pts = append(pts, plotter.XY{X: float64(r.Case.Size), Y: value(r)})
		}
	}
	return pts
}

// curve plots times against the size of the file, both logarithmic; nil when no line has two points.
func curve(title string, lines []series) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = title
	p.X.Label.Text, p.Y.Label.Text = "size of the file", "time"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = powers{sample.FormatBytes, 4}, powers{sample.FormatDuration, 10}
	p.Legend.Top, p.Legend.Left, p.Legend.Padding = true, true, vg.Millimeter/2
	p.Add(plotter.NewGrid())
	drawn := 0
	for _, l := range lines {
		if len(l.points) < 2 {
			continue
		}
		line, points, err := plotter.NewLinePoints(l.points)
		if err != nil {
			return nil, err
		}
		c := palette[l.colour%len(palette)]
		line.Color, points.Color, points.Shape = c, c, draw.CircleGlyph{}
		line.Width = vg.Points(1.5)
		if l.dashed || l.colour >= len(palette) {
			line.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
		}
		p.Add(line, points)
		p.Legend.Add(l.name, line, points)
		drawn++
	}
	if drawn == 0 {
		return nil, nil
	}
	if p.X.Max/p.X.Min > 1<<16 {
		p.X.Tick.Marker = powers{sample.FormatBytes, 16}
	}
	// Room for the legend: a line of it is a twentieth of the plot.
	p.Y.Max *= math.Pow(p.Y.Max/p.Y.Min, float64(drawn)/20/max(1-float64(drawn)/20, 0.3))
	return p, nil
}

// thresholdPlot shows the two ways to copy a file up, with and without what completing it costs.
func (rep *Report) thresholdPlot() (*plot.Plot, error) {
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

// bars plots one value per peer for the largest file of "write 1 byte".
func (rep *Report) bars(title, unit string, value func(*Result) float64) (*plot.Plot, int, error) {
	largest := int64(0)
	for _, r := range rep.Results {
		if r.Case.Group == "write 1 byte" {
			largest = max(largest, r.Case.Size)
		}
	}
	p := plot.New()
	p.Title.Text = title
	p.X.Label.Text = unit
	p.X.Tick.Marker = powers{func(x float64) string { return fmt.Sprintf("%g", x) }, 10}
	var names []string
	least := math.Inf(1)
	var values []float64
	for _, r := range rep.Results {
		if r.Case.Group == "write 1 byte" && r.Case.Size == largest && r.Latency.N > 0 && value(r) > 0 {
			names, values = append(names, r.Peer), append(values, value(r))
			least = min(least, value(r))
		}
	}
	if len(values) == 0 {
		return nil, 0, nil
	}
	base := math.Pow(10, math.Floor(math.Log10(least)))
	for i, v := range values {
		// A bar of an axis that has no zero begins at the power of ten below all.
		y := float64(len(values) - 1 - i)
		box, err := plotter.NewPolygon(plotter.XYs{{X: base, Y: y - 0.3}, {X: v, Y: y - 0.3}, {X: v, Y: y + 0.3}, {X: base, Y: y + 0.3}})
		if err != nil {
			return nil, 0, err
		}
		box.Color = palette[rep.colour(names[i])%len(palette)]
		box.LineStyle.Width = 0
		p.Add(box)
	}
	p.X.Scale = plot.LogScale{}
	p.X.Min = base
	slices.Reverse(names)
	p.NominalY(names...)
	p.Y.Padding = 2 * vg.Millimeter
	p.Y.Min, p.Y.Max = -0.6, float64(len(values))-0.4
	return p, len(values), nil
}

// powers marks the powers of a base.
type powers struct {
	format func(float64) string
	base   float64
}

// Ticks implements plot.Ticker.
func (t powers) Ticks(low, high float64) []plot.Tick {
	var out []plot.Tick
	for x := math.Pow(t.base, math.Floor(math.Log(low)/math.Log(t.base))); x <= high*1.0001; x *= t.base {
		if x >= low*0.9999 {
			out = append(out, plot.Tick{Value: x, Label: t.format(math.Round(x*1e6) / 1e6)})
		}
	}
	return out
}

// svg draws a plot. The widths of texts are those of the Liberation fonts: where a browser has none
// that is as wide, the margin keeps the labels whole.
func svg(p *plot.Plot, width, height vg.Length) (string, error) {
	const margin = vg.Centimeter / 2
	for _, t := range []*draw.TextStyle{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle,
		&p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle} {
		t.Font.Variant = "Sans"
	}
	p.BackgroundColor = color.White
	c := vgsvg.New(width, height)
	p.Draw(draw.Crop(draw.New(c), margin, -margin, margin/4, -margin/4))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return "", err
	}
	s := b.String()
	if i := strings.Index(s, "<svg"); i >= 0 { // without the XML prologue
		s = s[i:]
	}
	return strings.ReplaceAll(s, "font-family:Liberation Sans;", "font-family:Liberation Sans,Arial,Helvetica,sans-serif;"), nil
}
