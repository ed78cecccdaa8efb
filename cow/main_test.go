package cow

import (
	"flag"
	"os"
	"testing"

	"github.com/plyfs/plyfs/cow/bench/rig"
)

// TestMain: as root the tests mount filesystems. They do it in a cell, so that also of a test binary that is
// killed no mount is left, and no loop device.
func TestMain(m *testing.M) {
	flag.Parse()
	// A worker of the fuzzer has more descriptors than a cell hands on, and is in one already.
	if os.Geteuid() == 0 && flag.Lookup("test.fuzzworker").Value.String() != "true" {
		c, code, err := rig.Enter(rig.CellOptions{CPU: -1, Preempt: true})
		if err == nil && c == nil {
			os.Exit(code)
		}
		if err == nil {
			os.Setenv("TMPDIR", c.Scratch)
		}
	}
	os.Exit(m.Run())
}
