package store

import (
	"strings"
	"testing"

	"github.com/plyfs/plyfs/overlay/graft"
)

// A volume that can be created can be mounted.
func TestVolumeNames(t *testing.T) {
	for _, name := range []string{"", "v", "vv", "a.b-c_d", "-v", ".v", "v/w", "v w", strings.Repeat("v", 128)} {
		created, mounted := CheckName("volume", name), graft.CheckVolumeName(name)
		if (created == nil) != (mounted == nil) {
			t.Errorf("%q: to create: %v; to mount: %v", name, created, mounted)
		}
	}
	if CheckName("container", "c") != nil {
		t.Error("a container may have a short name")
	}
}
