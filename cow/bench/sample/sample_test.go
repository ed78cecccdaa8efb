package sample

import (
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestSummarize(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []float64
		want Summary
	}{
		{"nothing", nil, Summary{}},
		{"one", []float64{7}, Summary{1, 7, 7, 7, 7, 7}},
		{"odd", []float64{5, 1, 3}, Summary{3, 3, 2, 4, 1, 5}},
		{"even", []float64{4, 1, 3, 2}, Summary{4, 2.5, 1.75, 3.25, 1, 4}},
		{"outlier", []float64{1, 1, 1, 1, 1000}, Summary{5, 1, 1, 1, 1, 1000}},
	} {
		if got := Summarize(c.in); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

// A summary is in order, within its measurements, and does not depend on theirs.
func TestSummarizeLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		xs := rapid.SliceOfN(rapid.Float64Range(0, 1e12), 1, 50).Draw(t, "xs")
		before := slices.Clone(xs)
		s := Summarize(xs)
		if !slices.Equal(xs, before) {
			t.Fatal("the measurements were reordered")
		}
		order := []float64{slices.Min(xs), s.Min, s.Q1, s.Median, s.Q3, s.Max, slices.Max(xs)}
		if !slices.IsSorted(order) || s.Min != order[0] || s.Max != order[6] {
			t.Fatalf("out of order: %v", order)
		}
		slices.Reverse(xs)
		if Summarize(xs) != s {
			t.Fatal("depends on the order of the measurements")
		}
	})
}

func TestRatio(t *testing.T) {
	a, b := Summarize([]float64{2, 4, 6}), Summarize([]float64{1, 2, 3})
	if r := a.Ratio(b); r != 2 {
		t.Errorf("ratio %v, want 2", r)
	}
	low, high := a.RatioRange(b)
	if low != 3/2.5 || high != 5/1.5 {
		t.Errorf("range %v to %v, want 1.2 to 3.33", low, high)
	}
	if r := a.Ratio(Summary{}); !math.IsNaN(r) {
		t.Errorf("ratio to nothing: %v", r)
	}
	if got := FormatRatio(a.Ratio(Summary{})); got != "-" {
		t.Errorf("ratio to nothing prints as %q", got)
	}
}

func TestFormats(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{FormatDuration(0), "0 ns"},
		{FormatDuration(999), "999 ns"},
		{FormatDuration(1500), "1.5 µs"},
		{FormatDuration(23_456_000), "23.5 ms"},
		{FormatDuration(2.5e9), "2.5 s"},
		{FormatBytes(0), "0 B"},
		{FormatBytes(4096), "4 KiB"},
		{FormatBytes(1536 << 10), "1.5 MiB"},
		{FormatBytes(4 << 30), "4 GiB"},
		{FormatRatio(0.0012), "0.0012"},
		{FormatRatio(1.234), "1.23"},
		{FormatRatio(56.78), "56.8"},
		{FormatRatio(1234.5), "1234"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "4096": 4096, "64K": 64 << 10, "64KiB": 64 << 10, "1M": 1 << 20, "1m": 1 << 20, "4G": 4 << 30, "2GB": 2 << 30, "7B": 7,
	} {
		if got, err := ParseBytes(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "K", "-1", "1X", "1KM", "1 2", "99999999999G", "1.5M"} {
		if got, err := ParseBytes(in); err == nil {
			t.Errorf("%q: taken for %d", in, got)
		}
	}
}

// What is printed as a size of whole units is read back as the same.
func TestBytesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 999).Draw(t, "n") << rapid.SampledFrom([]uint{0, 10, 20, 30}).Draw(t, "unit")
		back, err := ParseBytes(strings.ReplaceAll(FormatBytes(float64(n)), " ", ""))
		if err != nil || back != n {
			t.Fatalf("%d printed as %q, read as %d, %v", n, FormatBytes(float64(n)), back, err)
		}
	})
}

func TestTable(t *testing.T) {
	tab := NewTable("row", "µs", "ratio")
	tab.Row("a", "1.5", "10")
	tab.Heading("more")
	tab.Row("long name", "1", "2")
	var b strings.Builder
	if err := tab.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"row         µs  ratio\n" +
		"a          1.5     10\n" +
		"\n" +
		"more\n" +
		"long name    1      2\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}
