package userns

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRanges(t *testing.T) {
	const file = `# comment
root:1:5
ann:100000:65536
1000:300000:10
bob:165536:65536
ann:200000:0
ann:x:1
ann:4294967295:2
ann:4294967295:1
ann:1`
	got, err := parseRanges(strings.NewReader(file), []string{"1000", "ann"})
	if err != nil {
		t.Fatal(err)
	}
	want := []Range{{100000, 65536}, {300000, 10}, {4294967295, 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}
