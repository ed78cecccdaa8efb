package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/plyfs/plyfs/cow/bench/rig"
	"github.com/plyfs/plyfs/cow/bench/sample"
)

// report is everything a run has found.
type report struct {
	Machine rig.Machine `json:"machine"`
	Quick   bool        `json:"quick"`
	Peers   []string    `json:"peers"`
	// Missing says why a filesystem was left out.
	Missing map[string]string `json:"missing,omitempty"`
	Rows    []*row            `json:"rows"`
}

// summarize computes medians and ratios from the samples.
func (r *report) summarize() {
	ratio := func(a, b *result) *float64 {
		if a == nil || b == nil {
			return nil
		}
		x := a.Summary.Ratio(b.Summary)
		if math.IsNaN(x) {
			return nil
		}
		return &x
	}
	for _, row := range r.Rows {
		for _, res := range row.Results {
			res.Summary = sample.Summarize(res.Samples)
		}
		for _, res := range row.Results {
			res.ToKernel = ratio(res, row.Results["kernel"])
			res.ToFuseOverlayfs = ratio(res, row.Results["fuse-overlayfs"])
		}
	}
}

// print writes one table per mode: medians, and the ratios of the filesystem
// called subject, and of those whose name begins so.
func (r *report) print(w io.Writer, subject string) error {
	var modes []string
	for _, row := range r.Rows {
		if !slices.Contains(modes, row.Mode) {
			modes = append(modes, row.Mode)
		}
	}
	for _, mode := range modes {
		head := append([]string{mode}, r.Peers...)
		if slices.Contains(r.Peers, subject) {
			head = append(head, subject+"/kernel", subject+"/fuse-ovl")
		}
		t := sample.NewTable(head...)
		scenario := ""
		for _, row := range r.Rows {
			if row.Mode != mode {
				continue
			}
			if row.Scenario != scenario {
				scenario = row.Scenario
				t.Heading(scenario)
			}
			cells := []string{"  " + row.Step}
			for _, p := range r.Peers {
				cells = append(cells, row.cell(p))
			}
			if len(head) > len(cells) {
				cells = append(cells, ratioCell(row.Results[subject], true), ratioCell(row.Results[subject], false))
			}
			t.Row(cells...)
		}
		if err := t.Write(w); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	return r.printFailures(w)
}

func (r *row) cell(peer string) string {
	res := r.Results[peer]
	switch {
	case r.Skipped != "":
		return "skipped"
	case res == nil:
		return "-"
	case res.Err != "" && len(res.Samples) == 0:
		return "failed"
	case res.Summary.N == 0:
		return "-"
	case r.Unit == "bytes":
		return sample.FormatBytes(res.Summary.Median)
	}
	return sample.FormatDuration(res.Summary.Median)
}

func ratioCell(res *result, kernel bool) string {
	if res == nil {
		return "-"
	}
	x := res.ToFuseOverlayfs
	if kernel {
		x = res.ToKernel
	}
	if x == nil {
		return "-"
	}
	return sample.FormatRatio(*x)
}

// printFailures says once what went wrong where, and what was left out.
func (r *report) printFailures(w io.Writer) error {
	said := map[string]bool{}
	say := func(format string, args ...any) {
		line := fmt.Sprintf(format, args...)
		if !said[line] {
			said[line] = true
			fmt.Fprintln(w, line)
		}
	}
	for _, p := range slices.Sorted(func(yield func(string) bool) {
		for name := range r.Missing {
			if !yield(name) {
				return
			}
		}
	}) {
		say("%s was left out: %s", p, r.Missing[p])
	}
	for _, row := range r.Rows {
		if row.Skipped != "" {
			say("%s was skipped: %s", row.Scenario, row.Skipped)
		}
		for _, p := range r.Peers {
			if res := row.Results[p]; res != nil && res.Err != "" {
				say("%s failed in %s (%s): %s", p, row.Scenario, row.Mode, res.Err)
			}
		}
	}
	return nil
}

// failures reports whether the filesystem called name failed anywhere.
func (r *report) failures(name string) bool {
	for _, row := range r.Rows {
		if res := row.Results[name]; res != nil && res.Err != "" {
			return true
		}
	}
	return false
}

func (r *report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(r)
}
