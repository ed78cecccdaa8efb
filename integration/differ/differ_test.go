package differ

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// TestFuzz runs made-up cases for PLYFS_FUZZ_TIME, from a random seed on, or from
// PLYFS_FUZZ_SEED; with the seed alone, that one case. With neither it runs a few that are always
// the same. The doc comment of the package has the other variables.
func TestFuzz(t *testing.T) {
	harness.NeedRoot(t)
	dir := harness.Dir(t)
	seed, cases := uint64(1), 8
	only := Only{Variant: os.Getenv("PLYFS_FUZZ_VARIANT"), Via: os.Getenv("PLYFS_FUZZ_VIA"), On: os.Getenv("PLYFS_FUZZ_ON")}
	var patience time.Duration
	if v := os.Getenv("PLYFS_FUZZ_TIME"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		seed, cases, patience = rand.Uint64()>>16, 1<<30, d
	}
	if v := os.Getenv("PLYFS_FUZZ_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
		if patience == 0 {
			cases = 1
		}
	} else if patience == 0 && only.Via == "" {
		only.Via = "core" // TestScripts mounts
	}
	start, count := time.Now(), 0
	first := seed
	fmt.Printf("differ: first seed %d\n", first) // at once: a case may hang
	for ; count < cases && (patience == 0 || time.Since(start) < patience); seed++ {
		f, err := Fuzz(dir, seed, only)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		count++
		if f == nil {
			continue
		}
		fmt.Printf("differ: seed %d: %s\ndiffer: shrinking\n", seed, f.What)
		small := Shrink(dir, f, time.Minute)
		report := fmt.Sprintf("case %d after %v, seed %d (PLYFS_FUZZ_SEED=%d go test -run TestFuzz ./integration/differ):\n%s\n\nshrunk:\n%s\n%s\n\nresults:\n%s\n\nstored:\n%s",
			count, time.Since(start), seed, seed, f.What, small.Case, small.What, strings.Join(small.Log, "\n"), small.Disk)
		t.Fatal(report)
	}
	t.Logf("%d cases from seed %d, no difference", count, first)
}
