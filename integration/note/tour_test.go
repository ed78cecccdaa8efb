package note

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/integration/harness"
)

// The ten lines of the README, as they stand there.
func TestTourOfTheReadme(t *testing.T) {
	harness.NeedRoot(t)
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "## Ten lines")
	_, rest, _ = strings.Cut(rest, "```sh\n")
	tour, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("the README has no tour")
	}
	harness.Busybox(t) // or skip
	dir := harness.Dir(t)
	if err := os.Symlink(harness.Binary(), dir+"/plyfs"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-ec", tour)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PLYFS_ROOT="+dir+"/store", "PATH="+dir+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "welcome\nmilk\nhi\n") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, kind := range []string{"images", "layers", "containers", "volumes"} {
		left, _ := filepath.Glob(dir + "/store/" + kind + "/*/*")
		if len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}
