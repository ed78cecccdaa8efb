// Package graft tests what is grafted into a view, through real mounts: rule by rule
// (rules_test.go), shared by several mounts, and from sources that are weak, far away or gone.
package graft

import (
	"fmt"
	"os"
	"testing"

	"github.com/plyfs/plyfs/integration/harness"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(weakVariable); spec != "" {
		if err := serveWeak(spec); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	harness.Main(m)
}
