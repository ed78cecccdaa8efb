package integration

import (
	"os"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/integration/harness"
)

// Host paths are for root and the owner of the mount.
func TestOthersSeeNoHostPaths(t *testing.T) {
	harness.NeedUser(t)
	l := harness.NewLayers(t, "f a 1\nd d")
	for _, dir := range []string{l.Root, l.Mnt} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := l.Plyfs(t)
	patch(t, m.Path("a"), 0, "2")
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"stat", l.Mnt}, 0, "requests"},
		{[]string{"stat", "--json", l.Mnt}, 0, `"requests"`},
		{[]string{"explain", l.Mnt + "/a"}, 1, "only root and the owner of the mount may ask that"},
		{[]string{"tree", l.Mnt}, 1, "only root and the owner"},
		{[]string{"diff", l.Mnt}, 1, "only root and the owner"},
		{[]string{"watch", l.Mnt}, 1, "only root and the owner"},
		{[]string{"settle", l.Mnt}, 1, "only root and the owner"},
		{[]string{"check", l.Mnt}, 1, "only root and the owner"},
		{[]string{"umount", l.Mnt}, 1, ""},
	} {
		out, err := asUser(t, l, tt.args...)
		if harness.ExitCode(err) != tt.code || !strings.Contains(out, tt.want) || tt.code != 0 && strings.Count(out, "\n") != 1 {
			t.Errorf("%q: %v, %q", tt.args, err, out)
		}
		if strings.Contains(out, "lower1") || strings.Contains(out, "upper") {
			t.Errorf("%q tells %q", tt.args, out)
		}
	}
	if !mounted(t, l.Mnt) {
		t.Error("somebody else unmounted it")
	}
	// Nor in the attributes a caller can read by himself.
	out := script(t, harness.AsUser(l.Root, "sh"), `for n in mnt mnt/a mnt/d; do getfattr -dm- $n; for a in stat explain settle events.; do getfattr -n plyfs.$a $n || :; done; done 2>&1`)
	if strings.Contains(out, "lower1") || strings.Contains(out, "/upper") || strings.Contains(out, "overlay.") {
		t.Errorf("attributes tell %s", out)
	}
}
