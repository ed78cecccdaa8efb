package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/cow/bench/rig"
	"github.com/plyfs/plyfs/cow/bench/sample"
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
	if len(rep.Results) != 3 { // two sizes, and of chmod the smallest
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
	if n := strings.Count(page.String(), "<svg"); n < 3 { // a curve, two charts of bars; a third when the bystander got to look
		t.Errorf("%d plots", n)
	}
	for _, external := range []string{"http://localhost", "src=", "<link"} {
		if strings.Contains(page.String(), external) {
			t.Errorf("the page needs something from outside: %s", external)
		}
	}
	if n := strings.Count(lines.String(), "\n"); n != 4 {
		t.Errorf("%d lines of CSV", n)
	}
	if n := strings.Count(gobench.String(), "ns/op"); n != 3 {
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
	all, err := Cases(&Options{}, "ext4")
	if err != nil {
		t.Fatal(err)
	}
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
	few, err := Cases(&Options{Largest: 4096, Match: func(n string) bool { return strings.HasPrefix(n, "chmod") }}, "ext4")
	if len(few) != 1 || err != nil {
		t.Errorf("%d cases instead of 1, %v", len(few), err)
	}
}

// Cases of one's own are every combination, and change what they say.
func TestCustomCases(t *testing.T) {
	o := Options{Rounds: 1, Custom: &Custom{Patterns: Patterns, Sizes: []int64{8 * kib, 64 * kib}, Asked: []int64{1, 4 * kib}, Offsets: []int64{100},
		Depths: []int{1, 3}, Jobs: []int{1, 2}, Files: 3}}
	all, err := Cases(&o, "ext4")
	if err != nil || len(all) != 9*2*2*2 { // overwrite and append twice; sizes, layers, jobs
		t.Fatalf("%d cases, %v", len(all), err)
	}
	o.Custom.Sparse, o.Custom.Depths = true, nil
	// An ordinary user has no chown.
	rep, err := Run(context.Background(), Place{Dir: t.TempDir(), User: os.Geteuid() != 0}, []*rig.Peer{rig.Plain()}, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rep.Results {
		if r.Err != "" || r.Latency.N != 1 {
			t.Errorf("%s, %s: %+v", r.Case.Group, r.Case.Name, r)
		}
	}
	for _, bad := range []Custom{{Patterns: []string{"cut"}}, {Offsets: []int64{mib}}, {Jobs: []int{0}}, {Depths: []int{-1}},
		{Files: -3}, {Files: 2, Jobs: []int{1, 4}}, {Asked: []int64{0}}, {Sizes: []int64{-1}}, {Patterns: []string{"append"}, Offsets: []int64{-1}},
		{Patterns: []string{"random"}, Sizes: []int64{1}}, {Sparse: true, Sizes: []int64{1}}} {
		if _, err := Run(context.Background(), Place{Dir: t.TempDir()}, []*rig.Peer{rig.Plain()}, Options{Custom: &bad}); !errors.As(err, new(*OptionError)) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// Verdicts compare the right way round, and are there only for what was measured.
func TestTargets(t *testing.T) {
	result := func(group string, size int64, peer string, ns float64) *Result {
		return &Result{Case: &Case{Group: group, Size: size}, Peer: peer, Latency: sample.Summarize([]float64{ns}), Upper: sample.Summarize([]float64{4096})}
	}
	rep := &Report{Filesystem: "ext4", Results: []*Result{
		result("write 1 byte", 64*kib, "plyfs", 100), result("write 1 byte", gib, "plyfs", 200), result("write 1 byte", gib, "kernel", 20000),
		result("chmod", 0, "plyfs", 100), result("chmod", gib, "plyfs", 300), result(groupSparse, 64*mib, "plyfs", 1)}}
	var got []string
	for _, v := range rep.Targets() {
		got = append(got, fmt.Sprintf("%.4g %.4g %.4g %v", v.Bound, v.Value, v.Room, v.Reached))
	}
	want := []string{"3 2 1.5 true", "50 100 2 true", "2 3 0.6667 false", "1.049e+06 4096 256 true"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	var text strings.Builder
	if err := rep.WriteTargets(&text); err != nil || !strings.Contains(text.String(), "MISSED by a factor of 1.50") {
		t.Errorf("%v\n%s", err, text.String())
	}
	rep.Filesystem = "xfs" // there the kernel is compared where it cannot share extents
	if n := len(rep.Targets()); n != 3 {
		t.Errorf("%d verdicts on xfs", n)
	}
	// Every case of the targets has peers that exist.
	for _, fs := range rig.Filesystems {
		cases, err := Cases(&Options{Targets: true}, fs)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			known := 0
			for _, p := range Peers("plyfs") {
				if c.takesPart(p.Name) {
					known++
				}
			}
			if known == 0 || known != len(c.Peers) {
				t.Errorf("%s, %s: peers %v", c.Group, c.Name, c.Peers)
			}
		}
	}
}
