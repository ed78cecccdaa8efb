// Package sample summarises repeated measurements and prints quantities.
//
// Timings on a shared machine are skewed to the right: a median and quartiles
// say what a mean and a deviation cannot. Ratios are taken between medians of one
// run, whose rounds were interleaved, and carry a range that follows from the quartiles of both sides.
package sample

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Summary describes a set of measurements of one thing, in their unit.
type Summary struct {
	N      int     `json:"n"`
	Median float64 `json:"median"`
	Q1     float64 `json:"q1"` // a quarter is at most this
	Q3     float64 `json:"q3"` // a quarter is at least this
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// Summarize returns the summary of xs; the zero Summary of nothing.
func Summarize(xs []float64) Summary {
	if len(xs) == 0 {
		return Summary{}
	}
	s := slices.Sorted(slices.Values(xs))
	return Summary{
		N: len(s), Median: Quantile(s, 0.5), Q1: Quantile(s, 0.25), Q3: Quantile(s, 0.75),
		Min: s[0], Max: s[len(s)-1],
	}
}

// Quantile returns the q-quantile of sorted, between neighbours in proportion
// (the definition R and numpy use unless told otherwise). sorted must not be empty.
func Quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	low := int(math.Floor(at))
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	part := at - float64(low)
	return sorted[low]*(1-part) + sorted[low+1]*part
}

// Ratio compares s with base. It is NaN where there is nothing to compare.
func (s Summary) Ratio(base Summary) float64 {
	if s.N == 0 || base.N == 0 || base.Median == 0 {
		return math.NaN()
	}
	return s.Median / base.Median
}

// RatioRange returns the range in which the ratio to base lies when each
// side is somewhere between its quartiles.
func (s Summary) RatioRange(base Summary) (low, high float64) {
	if s.N == 0 || base.N == 0 || base.Q1 == 0 || base.Q3 == 0 {
		return math.NaN(), math.NaN()
	}
	return s.Q1 / base.Q3, s.Q3 / base.Q1
}

// Spread is the distance of the quartiles as a part of the median.
func (s Summary) Spread() float64 {
	if s.Median == 0 {
		return 0
	}
	return (s.Q3 - s.Q1) / s.Median
}

// FormatRatio prints a ratio with as many digits as it deserves, "-" for none.
func FormatRatio(r float64) string {
	switch {
	case math.IsNaN(r) || math.IsInf(r, 0):
		return "-"
	case r < 0.01:
		return strconv.FormatFloat(r, 'f', 4, 64)
	case r < 10:
		return strconv.FormatFloat(r, 'f', 2, 64)
	case r < 100:
		return strconv.FormatFloat(r, 'f', 1, 64)
	}
	return strconv.FormatFloat(r, 'f', 0, 64)
}

// FormatDuration prints nanoseconds with three digits and a fitting unit.
func FormatDuration(ns float64) string {
	units := []struct {
		name string
		ns   float64
	}{{"s", 1e9}, {"ms", 1e6}, {"µs", 1e3}, {"ns", 1}}
	for _, u := range units {
		if math.Abs(ns) >= u.ns || u.ns == 1 {
			return digits(ns/u.ns) + " " + u.name
		}
	}
	return ""
}

// FormatBytes prints a number of bytes in binary units.
func FormatBytes(n float64) string {
	for i, u := range []string{"GiB", "MiB", "KiB"} {
		if size := float64(int64(1) << (10 * (3 - i))); math.Abs(n) >= size {
			return digits(n/size) + " " + u
		}
	}
	return digits(n) + " B"
}

// digits prints x with three significant digits and no needless zeros.
func digits(x float64) string {
	decimals := 2
	switch a := math.Abs(x); {
	case a >= 100:
		decimals = 0
	case a >= 10:
		decimals = 1
	}
	s := strconv.FormatFloat(x, 'f', decimals, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// ParseBytes reads a size such as 4096, 64K, 1MiB or 4G; units are binary.
func ParseBytes(s string) (int64, error) {
	number := strings.TrimRight(s, "KMGTiBkmgtb")
	unit := strings.ToUpper(strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(s[len(number):], "B"), "b"), "i"))
	shift := map[string]uint{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
	bits, known := shift[unit]
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || !known || n < 0 || n > math.MaxInt64>>bits {
		return 0, fmt.Errorf("%q is not a size (like 4096, 64K, 1M, 4G)", s)
	}
	return n << bits, nil
}

// Timed returns how long f takes, in nanoseconds.
func Timed(f func() error) (float64, error) {
	start := time.Now()
	err := f()
	return float64(time.Since(start)), err
}
