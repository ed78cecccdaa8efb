package bench

import (
	"bytes"
	"math"

	"github.com/go-analyze/charts"
	"github.com/go-analyze/charts/chartdraw"
)

// chart is a plot that can be drawn, self-contained. All have logarithmic axes: the library gets logarithms, and labels for them.
type chart interface {
	svg() (string, error)
}

// axis is a logarithmic axis.
type axis struct {
	label     string
	low, high float64
	base      float64 // its powers are marked
	format    func(float64) string
}

// include widens the axis to the value v.
func (a *axis) include(v float64) {
	if a.low == 0 {
		a.low, a.high = v, v
	}
	a.low, a.high = min(a.low, v), max(a.high, v)
}

// ticks returns the powers of the base that are on the axis, and its ends, without a label: to the library the first and the
// last tick are the ends.
func (a *axis) ticks() []chartdraw.Tick {
	out := []chartdraw.Tick{{Value: math.Log10(a.low)}}
	for v := math.Pow(a.base, math.Floor(math.Log(a.low)/math.Log(a.base))); v <= a.high*1.0001; v *= a.base {
		if v >= a.low*0.9999 {
			out = append(out, chartdraw.Tick{Value: math.Log10(v), Label: a.format(math.Round(v*1e6) / 1e6)})
		}
	}
	return append(out, chartdraw.Tick{Value: math.Log10(a.high)})
}

// These keep a label on the left away from its axis, and from the name of that: a browser without the library's font takes a wider one,
// but the label begins where the library says.
const (
	beforeLabel = "\u00a0\u00a0"
	afterLabel  = "\u00a0\u00a0\u00a0\u00a0"
)

// labelled returns the ticks of an axis on the left.
func labelled(ticks []chartdraw.Tick) []chartdraw.Tick {
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = beforeLabel + ticks[i].Label + afterLabel
		}
	}
	return ticks
}

// Colours that can be told apart in print and with the common colour blindness (Okabe, Ito).
var palette = []string{"#000000", "#e69f00", "#56b4e9", "#009e73", "#d55e00", "#0072b2", "#cc79a7", "#a0a0a0"}

func colourOf(n int) charts.Color { return charts.ParseColor(palette[n%len(palette)]) }

const (
	chartWidth = 640 // pixels
	lineChart  = 420 // height
	barHeight  = 34
	aroundBars = 110 // height of what is above and below the bars
)

// curves is a plot of lines over two logarithmic axes.
type curves struct {
	title string
	x, y  axis
	lines []series
}

func (c *curves) svg() (string, error) {
	ch := blank(c.title, &c.x, lineChart)
	ch.YAxis.Name, ch.YAxis.Ticks, ch.YAxis.GridMajorStyle = c.y.label, labelled(c.y.ticks()), ch.XAxis.GridMajorStyle
	for _, l := range c.lines {
		s := chartdraw.ContinuousSeries{Name: l.name}
		s.Style = chartdraw.Style{StrokeColor: colourOf(l.colour), StrokeWidth: 2, DotColor: colourOf(l.colour), DotWidth: 2.5}
		if l.dashed {
			s.Style.StrokeDashArray = []float64{5, 4}
		}
		for _, p := range l.points {
			s.XValues, s.YValues = append(s.XValues, math.Log10(p.x)), append(s.YValues, math.Log10(p.y))
		}
		ch.Series = append(ch.Series, s)
	}
	ch.Elements = []chartdraw.Renderable{func(r chartdraw.Renderer, field chartdraw.Box, _ chartdraw.Style) { legend(r, field, ch.Series) }}
	return draw(ch)
}

// legend names the lines, closer together than the library's legend does: there may be ten.
func legend(r chartdraw.Renderer, field chartdraw.Box, lines []chartdraw.Series) {
	const row, stroke = 16, 24
	chartdraw.Style{FontStyle: text}.WriteTextOptionsToRenderer(r)
	for i, l := range lines {
		x, y := field.Left+8, field.Top+(i+1)*row
		r.Text(l.GetName(), x+stroke+6, y)
		style := l.GetStyle()
		style.WriteDrawingOptionsToRenderer(r)
		r.MoveTo(x, y-5)
		r.LineTo(x+stroke, y-5)
		r.Stroke()
	}
}

// barChart has a bar that lies for each value, over a logarithmic axis.
type barChart struct {
	title string
	x     axis
	bars  []bar // from the top down
}

// bar is one value.
type bar struct {
	name   string
	colour int
	value  float64
	note   string // instead of a bar, where value is 0
}

// svg draws the bars as thick lines: the library's own bars cannot begin elsewhere than at 0.
func (c *barChart) svg() (string, error) {
	ch := blank(c.title, &c.x, aroundBars+barHeight*len(c.bars))
	top := float64(len(c.bars)) + 0.5
	ch.YAxis.Ticks = []chartdraw.Tick{{Value: 0.5}}
	for i := len(c.bars) - 1; i >= 0; i-- {
		b, y := c.bars[i], float64(len(c.bars)-i)
		ch.YAxis.Ticks = append(ch.YAxis.Ticks, chartdraw.Tick{Value: y, Label: b.name})
		if b.value == 0 {
			ch.Elements = append(ch.Elements, func(r chartdraw.Renderer, field chartdraw.Box, _ chartdraw.Style) {
				chartdraw.Style{FontStyle: text}.WriteTextOptionsToRenderer(r)
				r.Text(b.note, field.Left+8, field.Top+(2*i+1)*field.Height()/(2*len(c.bars))+4)
			})
			continue
		}
		ch.Series = append(ch.Series, chartdraw.ContinuousSeries{
			Style:   chartdraw.Style{StrokeColor: colourOf(b.colour), StrokeWidth: barHeight * 0.6},
			XValues: []float64{math.Log10(c.x.low), math.Log10(b.value)}, YValues: []float64{y, y},
		})
	}
	ch.YAxis.Ticks = labelled(append(ch.YAxis.Ticks, chartdraw.Tick{Value: top}))
	return draw(ch)
}

var (
	text = chartdraw.FontStyle{FontSize: 10, FontColor: charts.ParseColor("#222222")} // points
	grid = chartdraw.Style{StrokeColor: charts.ParseColor("#dddddd"), StrokeWidth: 1}
)

// blank is a plot without lines, over x; the other axis is on the left.
func blank(title string, x *axis, height int) *chartdraw.Chart {
	label := chartdraw.Style{FontStyle: text}
	return &chartdraw.Chart{
		Title: title, TitleStyle: label, Width: chartWidth, Height: height,
		Background:     chartdraw.Style{Padding: chartdraw.NewBox(40, 20, 20, 10)},
		XAxis:          chartdraw.XAxis{Name: x.label, NameStyle: label, Style: label, Ticks: x.ticks(), GridMajorStyle: grid},
		YAxis:          chartdraw.YAxis{NameStyle: label, Style: label, AxisType: chartdraw.YAxisSecondary},
		YAxisSecondary: chartdraw.YAxis{Style: chartdraw.Hidden()},
	}
}

func draw(ch *chartdraw.Chart) (string, error) {
	var b bytes.Buffer
	err := ch.Render(chartdraw.SVG, &b)
	return b.String(), err
}
