package naming

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name              string
		volume, container bool
	}{
		{"", false, false},
		{"v", false, true},
		{"vv", true, true},
		{"a.b-c_d", true, true},
		{"-v", false, false},
		{".v", false, false},
		{"v/w", false, false},
		{"v w", false, false},
		{strings.Repeat("v", MaxLength), true, true},
		{strings.Repeat("v", MaxLength+1), false, false},
	} {
		if err := Check("volume", c.name); (err == nil) != c.volume {
			t.Errorf("volume %q: %v", c.name, err)
		}
		if err := Check("container", c.name); (err == nil) != c.container {
			t.Errorf("container %q: %v", c.name, err)
		}
	}
}
