package integration

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/integration/harness"
)

// What cannot be printed is an error, whatever the command: with a full disk half an answer must not look like a whole one.
func TestStandardOutputIsFull(t *testing.T) {
	l := harness.NewLayers(t, "f dir/file 1\nf other 2")
	m := l.Plyfs(t)
	harness.Make(t, m.Dir, "f dir/file changed")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	root := "--root=" + l.Root + "/store"
	for _, args := range [][]string{
		{"version"}, {"version", "--json"}, {"help"}, {"help", "options"}, {"help", "mount"}, {"mount", "--help"}, {"--help"}, {"image", "--help"},
		{"tree", m.Dir}, {"tree", "--json", m.Dir}, {"diff", m.Dir}, {"diff", "--json", m.Dir}, {"explain", m.Path("dir/file")}, {"explain", "--json", m.Path("other")},
		{"stat", m.Dir}, {"check", m.Dir}, {"check", "--json", m.Dir},
		{"image", "ls", root}, {"ps", "-a", root}, {"volume", "ls", root}, {"volume", "create", root, "made"}, {"volume", "ls", "-q", root},
		{"volume", "inspect", root, "made"}, {"volume", "rm", root, "made"}, {"lab"},
	} {
		cmd := exec.Command(harness.Binary(), args...)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &said
		err := cmd.Run()
		if harness.ExitCode(err) != 1 || said.String() != "plyfs: write /dev/stdout: no space left on device\n" {
			t.Errorf("%s: %v, says %q", strings.Join(args, " "), err, said.String())
		}
	}
}
