package bench

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/plyfs/plyfs/cow/bench/sample"
)

// groups calls f with the results of each case, in the order of the run, with the title of
// the group when a new one begins, else "".
func (rep *Report) groups(f func(title string, c *Case, byPeer map[string]*Result)) {
	last := ""
	for i := 0; i < len(rep.Results); {
		c := rep.Results[i].Case
		by := map[string]*Result{}
		for ; i < len(rep.Results) && rep.Results[i].Case == c; i++ {
			by[rep.Results[i].Peer] = rep.Results[i]
		}
		title := c.Group
		if title == last {
			title = ""
		}
		last = c.Group
		f(title, c, by)
	}
}

// WriteTable prints the latency of the first change, a column per peer, and for plyfs what
// it wrote per byte asked for.
func (rep *Report) WriteTable(w io.Writer) error {
	table := func(title string, cell func(*Result) string) error {
		t := sample.NewTable(append([]string{title}, rep.Peers...)...)
		rep.groups(func(title string, c *Case, by map[string]*Result) {
			if title != "" {
				t.Heading(title)
			}
			cells := []string{"  " + c.Name}
			for _, p := range rep.Peers {
				text := "-"
				if r := by[p]; r != nil && r.Err != "" {
					text = "failed"
				} else if r != nil && r.Latency.N > 0 {
					text = cell(r)
				}
				cells = append(cells, text)
			}
			t.Row(cells...)
		})
		return t.Write(w)
	}
	if err := table("time per file, median", func(r *Result) string { return sample.FormatDuration(r.Latency.Median) }); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := table("space of the upper", func(r *Result) string { return sample.FormatBytes(r.Upper.Median) }); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := table("longest wait of another file", func(r *Result) string { return sample.FormatDuration(r.Collateral.Median) }); err != nil {
		return err
	}
	for _, r := range rep.Results {
		if r.Err != "" {
			fmt.Fprintf(w, "failed: %s: %s, %s: %s\n", r.Peer, r.Case.Group, r.Case.Name, r.Err)
		}
	}
	for _, m := range rep.Missing {
		fmt.Fprintf(w, "left out: %s\n", m)
	}
	return nil
}

// WriteCSV prints one line per result; durations in nanoseconds.
func (rep *Report) WriteCSV(w io.Writer) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"filesystem", "group", "case", "size", "files", "asked", "peer", "latency_median", "latency_q1", "latency_q3",
		"written_bytes", "upper_bytes", "flushes", "collateral"})
	num := func(f float64) string { return strconv.FormatFloat(f, 'f', 0, 64) }
	for _, r := range rep.Results {
		if r.Latency.N == 0 {
			continue
		}
		_ = c.Write([]string{rep.Filesystem, r.Case.Group, r.Case.Name, strconv.FormatInt(r.Case.Size, 10), strconv.Itoa(r.Case.Files),
			strconv.FormatInt(r.Case.Asked, 10), r.Peer, num(r.Latency.Median), num(r.Latency.Q1), num(r.Latency.Q3),
			num(r.Copied.Median), num(r.Upper.Median), num(r.Flushes.Median), num(r.Collateral.Median)})
	}
	c.Flush()
	return c.Error()
}

// WriteGoBench prints the results as `go test -bench` does, for benchstat.
func (rep *Report) WriteGoBench(w io.Writer) error {
	fmt.Fprintf(w, "goos: linux\npkg: github.com/plyfs/plyfs/cow/bench\ncpu: %s\n", rep.Machine.CPU)
	clean := strings.NewReplacer(" ", "_", ",", "", "/", "_")
	for _, r := range rep.Results {
		if r.Latency.N == 0 {
			continue
		}
		fmt.Fprintf(w, "BenchmarkCopyUp/fs=%s/op=%s/case=%s/peer=%s %d %.0f ns/op %.0f upper-B %.0f wait-ns\n", rep.Filesystem,
			clean.Replace(r.Case.Group), clean.Replace(r.Case.Name), r.Peer, r.Latency.N, r.Latency.Median, r.Upper.Median, r.Collateral.Median)
	}
	return nil
}
