package bench

import (
	"fmt"
	"html"
	"math"
	"strings"
	"unicode/utf8"
)

// chart is a drawing with logarithmic axes: lines, or bars that lie. Lengths are in pixels.
type chart struct {
	title string
	x, y  axis // of y only what lines need
	lines []series
	bars  []bar // from the top down
}

// axis is a logarithmic axis.
type axis struct {
	label     string
	low, high float64
	base      float64 // its powers are marked
	format    func(float64) string
}

// bar is one value.
type bar struct {
	name   string
	colour int
	value  float64
}

// include widens the axis to the value v.
func (a *axis) include(v float64) {
	if a.low == 0 {
		a.low, a.high = v, v
	}
	a.low, a.high = min(a.low, v), max(a.high, v)
}

// at returns where the value v is, from 0 to 1.
func (a *axis) at(v float64) float64 {
	if a.high <= a.low {
		return 0.5
	}
	return math.Log(v/a.low) / math.Log(a.high/a.low)
}

// ticks returns the powers of the base that are on the axis.
func (a *axis) ticks() []float64 {
	var out []float64
	for v := math.Pow(a.base, math.Floor(math.Log(a.low)/math.Log(a.base))); v <= a.high*1.0001; v *= a.base {
		if v >= a.low*0.9999 {
			out = append(out, math.Round(v*1e6)/1e6)
		}
	}
	return out
}

// Colours that can be told apart in print and with the common colour blindness (Okabe, Ito).
var palette = []string{"#000000", "#e69f00", "#56b4e9", "#009e73", "#d55e00", "#0072b2", "#cc79a7", "#a0a0a0"}

func colourOf(n int) string { return palette[n%len(palette)] }

const (
	chartWidth = 640
	lineChart  = 400 // height of the field and of what is around it
	barHeight  = 34
	around     = 80 // above and below the field of bars
	margin     = 16
	textHeight = 17
	letter     = 7 // width of a letter, about
)

// svg draws the chart, self-contained.
func (c *chart) svg() string {
	height := lineChart
	if len(c.bars) > 0 {
		height = around + barHeight*len(c.bars)
	}
	left := 0
	if len(c.bars) > 0 {
		for _, b := range c.bars {
			left = max(left, utf8.RuneCountInString(b.name)*letter)
		}
	} else {
		for _, v := range c.y.ticks() {
			left = max(left, utf8.RuneCountInString(c.y.format(v))*letter)
		}
		left += textHeight // the label, upright
	}
	d := drawing{box: box{float64(left + 2*margin), 2 * textHeight, chartWidth - 2*margin, float64(height - 3*textHeight)}}
	d.printf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="13">`, chartWidth, height)
	d.printf(`<rect width="%d" height="%d" fill="#ffffff"/>`, chartWidth, height)
	d.text((d.left+d.right)/2, textHeight, "middle", c.title)
	d.text((d.left+d.right)/2, float64(height)-textHeight/2, "middle", c.x.label)
	for _, v := range c.x.ticks() {
		x := d.across(c.x.at(v))
		d.line(x, d.top, x, d.bottom, "#dddddd")
		d.text(x, d.bottom+textHeight, "middle", c.x.format(v))
	}
	if len(c.bars) > 0 {
		c.drawBars(&d)
	} else {
		c.drawLines(&d)
	}
	d.line(d.left, d.bottom, d.right, d.bottom, "#000000")
	d.line(d.left, d.top, d.left, d.bottom, "#000000")
	d.printf("</svg>\n")
	return d.String()
}

func (c *chart) drawBars(d *drawing) {
	step := (d.bottom - d.top) / float64(len(c.bars))
	for i, b := range c.bars {
		top := d.top + float64(i)*step
		d.printf(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`,
			d.left, top+step*0.2, d.across(c.x.at(b.value))-d.left, step*0.6, colourOf(b.colour))
		d.text(d.left-margin/2, top+step/2+4, "end", b.name)
	}
}

func (c *chart) drawLines(d *drawing) {
	for _, v := range c.y.ticks() {
		y := d.up(c.y.at(v))
		d.line(d.left, y, d.right, y, "#dddddd")
		d.text(d.left-margin/2, y+4, "end", c.y.format(v))
	}
	d.printf(`<text x="%d" y="%.1f" text-anchor="middle" transform="rotate(-90 %[1]d %.1[2]f)">%s</text>`,
		textHeight, (d.top+d.bottom)/2, html.EscapeString(c.y.label))
	for i, l := range c.lines {
		var path, dots strings.Builder
		for _, p := range l.points {
			x, y := d.across(c.x.at(p.x)), d.up(c.y.at(p.y))
			fmt.Fprintf(&path, "%.1f,%.1f ", x, y)
			fmt.Fprintf(&dots, `<circle cx="%.1f" cy="%.1f" r="2.5"/>`, x, y)
		}
		dashes := ""
		if l.dashed {
			dashes = ` stroke-dasharray="5 4"`
		}
		row := d.top + float64(i+1)*textHeight
		d.printf(`<g fill="%s" stroke="%[1]s"><g fill="none" stroke-width="2"%s><polyline points="%s"/><path d="M%.1f %.1fh24"/></g>%s</g>`,
			colourOf(l.colour), dashes, strings.TrimSpace(path.String()), d.left+margin/2, row-4, dots.String())
		d.text(d.left+margin/2+30, row, "start", l.name)
	}
}

// box is the field between the axes.
type box struct{ left, top, right, bottom float64 }

func (b *box) across(part float64) float64 { return b.left + part*(b.right-b.left) }
func (b *box) up(part float64) float64     { return b.bottom - part*(b.bottom-b.top) }

// drawing is SVG text that grows.
type drawing struct {
	strings.Builder
	box
}

func (d *drawing) printf(format string, args ...any) { fmt.Fprintf(&d.Builder, format, args...) }

func (d *drawing) line(x1, y1, x2, y2 float64, colour string) {
	d.printf(`<path d="M%.1f %.1fL%.1f %.1f" stroke="%s"/>`, x1, y1, x2, y2, colour)
}

// text writes s at x, y; anchor is what of it is there: start, middle or end.
func (d *drawing) text(x, y float64, anchor, s string) {
	d.printf(`<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, x, y, anchor, html.EscapeString(s))
}
