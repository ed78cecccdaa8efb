// Package rootless tests images, containers and volumes of an ordinary user, who has subordinate
// ids, newuidmap and /dev/fuse, and nothing else.
package rootless

import (
	"testing"

	"github.com/plyfs/plyfs/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
