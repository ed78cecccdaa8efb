package image

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// erased is what a line has had before it was erased.
var erased = regexp.MustCompile(`.*\x1b\[K`)

// A load shows a bar for each layer on a terminal, as wide as that is, and takes it away; otherwise it prints plain lines,
// and with --quiet or --json nothing but the result.
func TestProgress(t *testing.T) {
	harness.NeedRoot(t)
	dir := harness.Dir(t)
	imagetest.WriteLayout(t, dir+"/in", &imagetest.Image{Name: "app:v1", How: "gzip", Layers: [][]imagetest.Entry{
		imagetest.Tree("F big 8M"), imagetest.Tree("f a x")}})
	load := func(args ...string) []string { return append([]string{"image", "load", dir + "/in"}, args...) }
	c := &harness.CLI{T: t, Root: dir + "/terminal"}
	plain := regexp.MustCompile(`^layer 1 of 2 [0-9a-f]{12}: unpacked\nlayer 2 of 2 [0-9a-f]{12}: unpacked\napp:v1  [0-9a-f]{12}  2 layers, 8\.\d MiB\n$`)
	for _, columns := range []int{70, 24} {
		x := harness.InTerminal(t, c.Command(load()...), 24, columns)
		x.Ends(0)
		x.Await("layers, ")
		out := x.Printed()
		bar := regexp.MustCompile(`layer 1 of 2 [0-9a-f]{12} \[#*\.*\] +[0-9]+% of 8\.[0-9]`)
		if columns == 24 {
			bar = regexp.MustCompile(`\r +[0-9]+% of 8\.[0-9]`)
		}
		if !bar.MatchString(out) {
			t.Errorf("%d columns: no bar in %q", columns, out)
		}
		for _, piece := range strings.FieldsFunc(out, func(r rune) bool { return r == '\r' || r == '\n' }) {
			if strings.Contains(piece, "%") && len(strings.TrimSuffix(piece, "\x1b[K")) >= columns {
				t.Errorf("%d columns: the bar needs more: %q", columns, piece)
			}
		}
		// What stays is what is printed without a terminal.
		var stays strings.Builder
		for line := range strings.Lines(strings.ReplaceAll(out, "\r\n", "\n")) {
			stays.WriteString(erased.ReplaceAllString(line, ""))
		}
		if !plain.MatchString(stays.String()) {
			t.Errorf("%d columns: %q stays", columns, stays.String())
		}
		c.Do("image", "rm", "app:v1")
	}
	if out := c.Do(load()...); !plain.MatchString(out) {
		t.Errorf("%q", out)
	}
	id := c.Do("image", "ls", "-q")
	if diff := cmp.Diff(id, c.Do(load("-q")...)); diff != "" {
		t.Error(diff)
	}
	if out := c.Do(load("--json")...); !strings.HasPrefix(out, "[") {
		t.Errorf("%q", out)
	}
}
