package copyup

import (
	"encoding/json"
	"testing"

	"github.com/plyfs/plyfs/integration/harness"
)

// TestSettleJSON: plyfs settle --json tells what there was to do.
func TestSettleJSON(t *testing.T) {
	const size = 3 << 20
	l := harness.NewLayers(t, "F big 3M")
	m := l.Plyfs(t, manual...)
	writeAt(t, m.Path("big"), harness.Bytes(size), "!", 1<<20)
	for _, files := range []int{1, 0} {
		out, err := harness.Run("settle", "--json", m.Dir)
		must(t, err)
		var said struct {
			Files, Unfinished int
			Bytes             int64
		}
		must(t, json.Unmarshal([]byte(out), &said))
		if said.Files != files || said.Unfinished != 0 || (said.Bytes > 0 && said.Bytes < size) != (files > 0) {
			t.Errorf("settle --json: %s", out)
		}
	}
}
