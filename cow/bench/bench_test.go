package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/cow/bench/rig"
)

// The plain peer needs no mount: the whole way from cases to reports can be tried anywhere.
func TestPlainRun(t *testing.T) {
	dir := t.TempDir()
	o := Options{Quick: true, Rounds: 1, Largest: 64 << 10, Match: func(name string) bool {
		return strings.HasPrefix(name, "write") || strings.HasPrefix(name, "chmod")
	}}
	rep, err := Run(context.Background(), Place{Dir: dir}, []*rig.Peer{rig.Plain()}, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Results) != 4 { // two groups, two sizes
		t.Fatalf("%d results", len(rep.Results))
	}
	for _, r := range rep.Results {
		if r.Err != "" || r.Latency.N != 1 || r.Latency.Median <= 0 || r.Upper.Median < float64(r.Case.Size) {
			t.Errorf("%s, %s: %+v", r.Case.Group, r.Case.Name, r)
		}
	}
	var table, page, lines, gobench bytes.Buffer
	for _, err := range []error{rep.WriteTable(&table), rep.WriteHTML(&page), rep.WriteCSV(&lines), rep.WriteGoBench(&gobench)} {
		if err != nil {
			t.Error(err)
		}
	}
	if n := strings.Count(page.String(), "<svg"); n < 4 { // two curves, two charts of bars; a third when the bystander got to look
		t.Errorf("%d plots", n)
	}
	for _, external := range []string{"http://localhost", "src=", "<link"} {
		if strings.Contains(page.String(), external) {
			t.Errorf("the page needs something from outside: %s", external)
		}
	}
	if n := strings.Count(lines.String(), "\n"); n != 5 {
		t.Errorf("%d lines of CSV", n)
	}
	if n := strings.Count(gobench.String(), "ns/op"); n != 4 {
		t.Errorf("%d Go benchmarks", n)
	}
	if b, err := json.Marshal(rep); err != nil || !bytes.Contains(b, []byte(`"latency_ns"`)) {
		t.Errorf("JSON: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 3 { // the lower directories
		t.Errorf("left behind: %v", left)
	}
}

// Every case changes what it says, and asks for a change at all.
func TestCases(t *testing.T) {
	all := Cases(&Options{}, "ext4")
	if len(all) < 40 {
		t.Errorf("only %d cases", len(all))
	}
	seen := map[string]bool{}
	for _, c := range all {
		name := c.Group + ": " + c.Name
		if seen[name] || (c.change == nil) == (c.all == nil) || c.Files < 1 || c.Jobs < 1 || c.Depth < 1 {
			t.Errorf("%s: %+v", name, c)
		}
		seen[name] = true
	}
	if n := len(Cases(&Options{Largest: 4096, Match: func(n string) bool { return strings.HasPrefix(n, "chmod") }}, "ext4")); n != 1 {
		t.Errorf("%d cases instead of 1", n)
	}
}
