package cow

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkThresholds is where DefaultThreshold and metaThreshold come from: what
// a copy-up costs its caller and what settling costs later, for files copied at
// once ("sync", and "later": with a record, synced when settled) and for files left in
// the lower ("range"). Extents are not shared. Use -benchtime 1x.
func BenchmarkThresholds(b *testing.B) {
	const files = 400
	origin := make([]byte, 37)
	for _, kind := range kinds {
		for _, kib := range []int{4, 16, 64, 128, 256, 1024} {
			for _, how := range []string{"sync", "later", "range"} {
				b.Run(fmt.Sprintf("%s/%dKiB/%s", kind, kib, how), func(b *testing.B) {
					for range b.N {
						cfg := Config{Threshold: map[string]int64{"sync": -1, "later": 1 << 40, "range": 1}[how]}
						w := newWorld(b, filesystem(b, kind, 1024), cfg)
						for i := range files {
							must(b, os.WriteFile(w.lowerPath(fmt.Sprint(i)), pattern(kib<<10, byte(i)), 0o644))
						}
						unix.Sync()
						src := w.source("0")
						w.e.pairOf(&src.Stat).noClone.Store(true)
						w.e.Block()
						start := time.Now()
						for i := range files {
							s, err := w.e.Stage(w.source(fmt.Sprint(i)), &Want{Size: -1, Range: true, Origin: origin})
							must(b, err)
							w.commit(s, fmt.Sprint(i))
							p, err := w.e.OpenPartial(s.FD, "")
							must(b, err)
							_, err = p.WriteAt([]byte("x"), 100)
							must(b, err)
							p.Close()
							s.Close()
						}
						b.ReportMetric(float64(time.Since(start).Microseconds())/files, "µs/copy-up")
						start = time.Now()
						left, err := w.e.Settle(SettleOptions{})
						if left != 0 || err != nil {
							b.Fatal(left, err)
						}
						b.ReportMetric(float64(time.Since(start).Microseconds())/files, "µs/settle")
						b.ReportMetric(0, "ns/op")
					}
				})
			}
		}
	}
}
