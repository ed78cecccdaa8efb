package bench

import (
	"encoding/xml"
	"fmt"
	"strings"
	"testing"
)

// Every plot is well-formed, and nothing is drawn beside the field between its axes.
func TestPlots(t *testing.T) {
	rep := &Report{Peers: []string{"plain", "a < b"}}
	for i, peer := range rep.Peers {
		for size := int64(4096); size <= 1<<30; size *= 4 {
			r := &Result{Peer: peer, Case: &Case{Group: "write 1 byte", Size: size}}
			r.Latency.N, r.Latency.Median = 3, float64(size)*float64(i+1)
			r.Upper.Median = float64(size)
			rep.Results = append(rep.Results, r)
		}
	}
	plots := rep.plots()
	if len(plots) != 3 { // of times against size, times of the largest, space
		t.Errorf("%d plots", len(plots))
	}
	for _, p := range plots {
		points, names := 0, 0
		d := xml.NewDecoder(strings.NewReader(p.svg))
		for {
			tok, err := d.Token()
			if tok == nil {
				if err.Error() != "EOF" {
					t.Errorf("%s: %v", p.name, err)
				}
				break
			}
			if text, ok := tok.(xml.CharData); ok && string(text) == "a < b" {
				names++
			}
			e, _ := tok.(xml.StartElement)
			var list string
			for _, a := range e.Attr {
				if a.Name.Local == "points" {
					list = a.Value
				}
			}
			for _, pair := range strings.Fields(list) {
				var x, y float64
				if _, err := fmt.Sscanf(pair, "%f,%f", &x, &y); err != nil || x < 40 || x > chartWidth || y < 0 || y > lineChart {
					t.Errorf("%s: a point at %s, %v", p.name, pair, err)
				}
				points++
			}
		}
		if names != 1 {
			t.Errorf("%s names a peer %d times", p.name, names)
		}
		if want := map[string]int{"write-1-byte": 20}[p.name]; points != want {
			t.Errorf("%s has %d points, want %d", p.name, points, want)
		}
	}
}
