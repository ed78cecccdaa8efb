// Package layertest has what tests of layers, and of what is built on them, share.
package layertest

import (
	"os"
	"strings"
	"testing"
)

// OpenBelow returns the paths at and below dir that this process has open. What else it has open comes and goes
// with the collector. It skips the test without /proc.
func OpenBelow(t testing.TB, dir string) (paths []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, dir) {
			paths = append(paths, to)
		}
	}
	return paths
}
