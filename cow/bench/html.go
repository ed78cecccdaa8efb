package bench

import (
	"bytes"
	"fmt"
	"html/template"
	"image/color"
	"io"
	"math"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/plyfs/plyfs/cow/bench/sample"
)

// WriteHTML prints a page with everything in it: plots, the table, the machine.
func (rep *Report) WriteHTML(w io.Writer) error {
	var page struct {
		*Report
		Plots []template.HTML
		Table string
		When  string
	}
	page.Report, page.When = rep, rep.Machine.Time.Format("2 January 2006")
	var text bytes.Buffer
	if err := rep.WriteTable(&text); err != nil {
		return err
	}
	page.Table = text.String()
	for _, g := range []string{"write 1 byte", "append 1 byte", "chmod", "O_TRUNC"} {
		svg, err := rep.curve(g)
		if err != nil {
			return err
		}
		page.Plots = append(page.Plots, svg)
	}
	for _, b := range []struct {
		title, unit string
		value       func(*Result) float64
	}{
		{"One byte written to the largest file", "milliseconds, logarithmic", func(r *Result) float64 { return r.Latency.Median / 1e6 }},
		{"Somebody else opens another file meanwhile: longest wait", "milliseconds, logarithmic", func(r *Result) float64 { return r.Collateral.Median / 1e6 }},
		{"Space the upper takes for it", "KiB, logarithmic", func(r *Result) float64 { return r.Upper.Median / 1024 }},
	} {
		svg, err := rep.bars(b.title, b.unit, b.value)
		if err != nil {
			return err
		}
		page.Plots = append(page.Plots, svg)
	}
	return pageTemplate.Execute(w, page)
}

// Colours that can be told apart in print and with the common colour blindness (Okabe, Ito).
var palette = []color.RGBA{
	{0, 0, 0, 255}, {230, 159, 0, 255}, {86, 180, 233, 255}, {0, 158, 115, 255},
	{213, 94, 0, 255}, {0, 114, 178, 255}, {204, 121, 167, 255}, {160, 160, 160, 255},
}

func (rep *Report) colour(peer string) color.RGBA {
	for i, p := range rep.Peers {
		if p == peer {
			return palette[i%len(palette)]
		}
	}
	return palette[0]
}

// curve plots the latency of a group against the size of the file, both logarithmic.
func (rep *Report) curve(group string) (template.HTML, error) {
	p := plot.New()
	p.Title.Text = "First change of a lower file: " + group
	p.X.Label.Text, p.Y.Label.Text = "size of the file", "time of the change"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = powers{sample.FormatBytes, 16}, powers{sample.FormatDuration, 10}
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	any := false
	for _, peer := range rep.Peers {
		var pts plotter.XYs
		for _, r := range rep.Results {
			if r.Case.Group == group && r.Peer == peer && r.Latency.Median > 0 {
				pts = append(pts, plotter.XY{X: float64(r.Case.Size), Y: r.Latency.Median})
			}
		}
		if len(pts) == 0 {
			continue
		}
		line, points, err := plotter.NewLinePoints(pts)
		if err != nil {
			return "", err
		}
		line.Color, points.Color, points.Shape = rep.colour(peer), rep.colour(peer), draw.CircleGlyph{}
		line.Width = vg.Points(1.5)
		p.Add(line, points)
		p.Legend.Add(peer, line, points)
		any = true
	}
	if !any {
		return "", nil
	}
	p.Y.Max *= 30 // room for the legend
	return svg(p, 16*vg.Centimeter, 10*vg.Centimeter)
}

// bars plots one value per peer for the largest file of "write 1 byte".
func (rep *Report) bars(title, unit string, value func(*Result) float64) (template.HTML, error) {
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
		return "", nil
	}
	base := math.Pow(10, math.Floor(math.Log10(least)))
	for i, v := range values {
		// A bar of an axis that has no zero begins at the power of ten below all.
		y := float64(len(values) - 1 - i)
		box, err := plotter.NewPolygon(plotter.XYs{{X: base, Y: y - 0.3}, {X: v, Y: y - 0.3}, {X: v, Y: y + 0.3}, {X: base, Y: y + 0.3}})
		if err != nil {
			return "", err
		}
		box.Color = rep.colour(names[i])
		box.LineStyle.Width = 0
		p.Add(box)
	}
	p.X.Scale = plot.LogScale{}
	p.X.Min = base
	labels := make([]string, len(names))
	for i, n := range names {
		labels[len(names)-1-i] = n
	}
	p.NominalY(labels...)
	p.Y.Min, p.Y.Max = -0.6, float64(len(values))-0.4
	return svg(p, 16*vg.Centimeter, vg.Length(2+float64(len(values))*0.9)*vg.Centimeter)
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

func svg(p *plot.Plot, width, height vg.Length) (template.HTML, error) {
	c := vgsvg.New(width, height)
	p.Draw(draw.New(c))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return "", err
	}
	s := b.String()
	if i := strings.Index(s, "<svg"); i >= 0 { // without the XML prologue
		s = s[i:]
	}
	return template.HTML(s), nil
}

var pageTemplate = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>What copy-up costs</title>
<style>
body { font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
figure { margin: 1.5rem 0 } svg { max-width: 100%; height: auto }
pre { overflow-x: auto; font-size: 13px; background: #f6f6f6; padding: 1rem }
</style></head><body>
<h1>What copy-up costs</h1>
<p>The first change of a file of a read-only layer, on {{.Filesystem}}, {{.When}}: Linux {{.Machine.Kernel}}, {{.Machine.CPUs}} processors
({{.Machine.CPU}}). Medians of {{.Rounds}} rounds, the filesystems in turns. “plain” copies the whole file and then changes the copy.
Absolute times do not carry over to another machine; the distances between the lines do.</p>
{{range .Plots}}{{if .}}<figure>{{.}}</figure>{{end}}{{end}}
<h2>All figures</h2>
<pre>{{.Table}}</pre>
</body></html>
`))
