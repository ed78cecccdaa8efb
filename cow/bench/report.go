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

// quantities are what is reported, each in a table of its own. A cell is empty where there is nothing to say.
var quantities = []struct {
	title string
	cell  func(*Result) string
}{
	{"time per file, median", func(r *Result) string { return sample.FormatDuration(r.Latency.Median) }},
	{"spread (of the quartiles)", func(r *Result) string {
		if r.Latency.N < 2 {
			return ""
		}
		return strconv.FormatFloat(r.Latency.Spread()*100, 'f', 0, 64) + " %"
	}},
	{"bytes changed per second", func(r *Result) string {
		if r.Case.Asked < 4096*int64(r.Case.Files) || r.Latency.Median == 0 {
			return ""
		}
		return sample.FormatBytes(float64(r.Case.Asked) / float64(r.Case.Files) / r.Latency.Median * 1e9)
	}},
	{"bytes written per byte asked for", func(r *Result) string {
		if r.Case.Asked == 0 || r.Copied.N == 0 {
			return ""
		}
		return sample.FormatRatio(r.Copied.Median / float64(r.Case.Asked))
	}},
	{"space of the upper", func(r *Result) string { return sample.FormatBytes(r.Upper.Median) }},
	{"syncs of the disk", func(r *Result) string { return count(r.Flushes) }},
	{"wait of another file, 99 of 100", func(r *Result) string { return duration(r.Usual) }},
	{"wait of another file, longest", func(r *Result) string { return duration(r.Collateral) }},
	{"time per file to complete it later", func(r *Result) string { return duration(r.Settle) }},
}

func duration(s sample.Summary) string {
	if s.N == 0 {
		return ""
	}
	return sample.FormatDuration(s.Median)
}

func count(s sample.Summary) string {
	if s.N == 0 {
		return ""
	}
	return strconv.FormatFloat(s.Median, 'f', -1, 64)
}

// WriteTable prints a table per quantity, with a column per peer, and how the targets were met.
func (rep *Report) WriteTable(w io.Writer) error {
	for _, q := range quantities {
		t := sample.NewTable(append([]string{q.title}, rep.Peers...)...)
		any, heading := false, ""
		rep.groups(func(title string, c *Case, by map[string]*Result) {
			if title != "" {
				heading = title
			}
			cells, said := []string{"  " + c.Name}, false
			for _, p := range rep.Peers {
				text := "-"
				if r := by[p]; r != nil && r.Err != "" {
					text = "failed"
				} else if r != nil && r.Latency.N > 0 {
					if s := q.cell(r); s != "" {
						text, said = s, true
					}
				}
				cells = append(cells, text)
			}
			if !said {
				return
			}
			if any = true; heading != "" {
				t.Heading(heading)
				heading = ""
			}
			t.Row(cells...)
		})
		if !any {
			continue
		}
		if err := t.Write(w); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	for _, r := range rep.Results {
		if r.Err != "" {
			fmt.Fprintf(w, "failed: %s: %s, %s: %s\n", r.Peer, r.Case.Group, r.Case.Name, r.Err)
		}
	}
	for _, m := range rep.Missing {
		fmt.Fprintf(w, "left out: %s\n", m)
	}
	if s := rep.short(); s != "" {
		fmt.Fprintf(w, "not everything was measured %d times: %s\n", rep.Rounds, s)
	}
	return rep.WriteTargets(w)
}

// counted returns the fewest and the most rounds that a figure is the median of, and how many figures are of a warm-up.
func (rep *Report) counted() (least, most, warm int) {
	for _, r := range rep.Results {
		n := r.Latency.N
		switch {
		case n == 0 || r.Case.rounds > 0:
			continue
		case r.WarmUp:
			warm++
		}
		if most == 0 {
			least = n
		}
		least, most = min(least, n), max(most, n)
	}
	return least, most, warm
}

// short says what there was no time for; empty for nothing.
func (rep *Report) short() string {
	least, most, warm := rep.counted()
	if most == 0 || least == rep.Rounds && warm == 0 {
		return ""
	}
	s := fmt.Sprintf("%d to %d rounds, as there was time", least, most)
	if least == most {
		s = fmt.Sprintf("%d of %d rounds, as there was time", least, rep.Rounds)
	}
	if warm > 0 {
		s += fmt.Sprintf("; %d of %d figures are of the warm-up", warm, len(rep.Results))
	}
	return s
}

// medians says of how many rounds the figures are.
func (rep *Report) medians() string {
	if s := rep.short(); s != "" {
		return "Medians of " + s
	}
	if rep.Rounds == 1 {
		return "One round"
	}
	return fmt.Sprintf("Medians of %d rounds", rep.Rounds)
}

// WriteCSV prints one line per result; durations in nanoseconds.
func (rep *Report) WriteCSV(w io.Writer) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"filesystem", "group", "case", "size", "files", "asked", "peer", "latency_median", "latency_q1", "latency_q3",
		"written_bytes", "upper_bytes", "flushes", "collateral", "collateral_99", "settle"})
	whole := func(f float64) string { return strconv.FormatFloat(f, 'f', 0, 64) }
	num := func(s sample.Summary) string {
		if s.N == 0 {
			return ""
		}
		return whole(s.Median)
	}
	for _, r := range rep.Results {
		if r.Latency.N == 0 {
			continue
		}
		_ = c.Write([]string{rep.Filesystem, r.Case.Group, r.Case.Name, strconv.FormatInt(r.Case.Size, 10), strconv.Itoa(r.Case.Files),
			strconv.FormatInt(r.Case.Asked, 10), r.Peer, num(r.Latency), whole(r.Latency.Q1), whole(r.Latency.Q3),
			num(r.Copied), num(r.Upper), num(r.Flushes), num(r.Collateral), num(r.Usual), num(r.Settle)})
	}
	c.Flush()
	return c.Error()
}

// WriteGoBench prints the results as `go test -bench` does, for benchstat: a line per round.
func (rep *Report) WriteGoBench(w io.Writer) error {
	fmt.Fprintf(w, "goos: linux\npkg: github.com/plyfs/plyfs/cow/bench\ncpu: %s\n", rep.Machine.CPU)
	clean := strings.NewReplacer(" ", "_", ",", "", "/", "_")
	for _, r := range rep.Results {
		name := fmt.Sprintf("BenchmarkCopyUp/fs=%s/op=%s/case=%s/peer=%s", rep.Filesystem, clean.Replace(r.Case.Group), clean.Replace(r.Case.Name), r.Peer)
		for _, ns := range r.latencies {
			if _, err := fmt.Fprintf(w, "%s 1 %.0f ns/op %.0f upper-B\n", name, ns, r.Upper.Median); err != nil {
				return err
			}
		}
	}
	return nil
}
