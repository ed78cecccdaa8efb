package integration

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/integration/harness"
)

// What the layers have is told of the name that was asked for, whichever name the file was first looked up by.
func TestExplainAnotherName(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "f a 1\nh hard a\nd d\nh d/third a", "f hard 2\nd d\nw d/third")
	m := l.Plyfs(t)
	for _, name := range []string{"a", "hard", "d/third"} { // the order in which the names become known
		if _, err := os.Stat(m.Path(name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"a":       "absent a, provides a, absent a: It comes from lower 1, the topmost layer that has the name.",
		"hard":    "absent hard, provides hard, hidden hard: It comes from lower 1, the topmost layer that has the name; lower 2 has it too, hidden.",
		"d/third": "absent d/third, provides d/third, whiteout d/third: It comes from lower 1, the topmost layer that has the name; lower 2 has a whiteout, which hides the name in the layers below it.",
	} {
		var e struct {
			Path, Sentence string
			Layers         []struct{ Part, Name string }
		}
		if err := json.Unmarshal([]byte(plyfs(t, "explain", "--json", m.Path(name))), &e); err != nil {
			t.Fatal(err)
		}
		var parts []string
		for _, p := range e.Layers {
			parts = append(parts, p.Part+" "+p.Name)
		}
		if got := strings.Join(parts, ", ") + ": " + e.Sentence; got != want || e.Path != "/"+name {
			t.Errorf("%s: %s\nwant %s", e.Path, got, want)
		}
	}
}
