// Package graft tests what is grafted into a view, through real mounts: rule by rule
// (rules_test.go), shared by several mounts, and from sources that are weak, far away or gone.
package graft

import (
	"testing"

	"github.com/plyfs/plyfs/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
