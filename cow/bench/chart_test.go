package bench

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every plot is well-formed, names every peer once, and has all its points within the picture.
func TestPlots(t *testing.T) {
	rep := &Report{Peers: []string{"plain", "a < b"}}
	for i, peer := range rep.Peers {
		for size := int64(4096); size <= 1<<30; size *= 4 {
			r := &Result{Peer: peer, Case: &Case{Group: "write 1 byte", Size: size}}
			r.Latency.N, r.Latency.Median = 3, float64(size)*float64(i+1)
			r.Upper.Median = float64(size)
			if peer == "plain" { // the other is done before anybody had to wait
				r.Collateral.Median = 1e6
			}
			rep.Results = append(rep.Results, r)
		}
	}
	plots, err := rep.plots()
	if err != nil {
		t.Fatal(err)
	}
	if dir := os.Getenv("PLYFS_PLOTS"); dir != "" { // to look at them
		for _, p := range plots {
			if err := os.WriteFile(filepath.Join(dir, p.name+".svg"), []byte(p.svg), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		t.Log(filepath.Glob(dir + "/*.svg"))
	}
	if len(plots) != 4 { // of times against size, times of the largest, waiting, space
		t.Errorf("%d plots", len(plots))
	}
	for _, p := range plots {
		points, names := 0, 0
		d := xml.NewDecoder(strings.NewReader(p.svg))
		for {
			tok, err := d.Token()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("%s: %v", p.name, err)
				}
				break
			}
			if text, ok := tok.(xml.CharData); ok && strings.TrimSpace(string(text)) == "a < b" {
				names++
			}
			if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "circle" {
				var x, y float64
				for _, a := range e.Attr {
					switch a.Name.Local {
					case "cx":
						fmt.Sscan(a.Value, &x)
					case "cy":
						fmt.Sscan(a.Value, &y)
					}
				}
				if x < 40 || x > chartWidth || y < 40 || y > lineChart {
					t.Errorf("%s: a point at %g, %g", p.name, x, y)
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
