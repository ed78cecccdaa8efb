// Package note tells the story of a container's data, from its image to a volume, one test
// for each station.
package note

import (
	"testing"

	"github.com/plyfs/plyfs/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
