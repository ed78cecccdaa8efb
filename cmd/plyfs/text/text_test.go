package text

import (
	"strings"
	"testing"
)

func TestWrap(t *testing.T) {
	for in, want := range map[string]string{
		"":                        "",
		"one":                     "one",
		"one two\nthree four":     "one two|three four",
		"  a  b\n\nc ":            "a b c",
		"averyveryverylongword b": "averyveryverylongword|b",
		"äöüäö äöüä b":            "äöüäö äöüä|b",
	} {
		if got := strings.Join(Wrap(in, 10), "|"); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
