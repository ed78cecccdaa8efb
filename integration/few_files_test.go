package integration

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/plyfs/plyfs/integration/harness"
)

// A daemon that may open few files serves many, copied up by range too: what it keeps open between requests is
// bounded by its limit.
func TestFewOpenFiles(t *testing.T) {
	harness.NeedRoot(t)
	const files, open = 300, 100
	spec := "d dir"
	for i := range files {
		spec += fmt.Sprintf("\nd dir/%d\nF dir/%d/low 8k", i, i)
	}
	l := harness.NewLayers(t, spec)
	mount := `ulimit -Sn 64 && ulimit -Hn 64 && exec "$@"`
	cmd := exec.Command("sh", "-c", mount, "sh", harness.Binary(), "mount", "--lower", l.Lowers[0],
		"--upper", l.Upper, "--work", l.Work, "--threshold", "4K", l.Mnt)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { harness.Unmount(l.Mnt) })
	for i := range files {
		dir := fmt.Sprintf("%s/dir/%d", l.Mnt, i)
		do(t, os.WriteFile(dir+"/new", []byte("new"), 0o644))
		f, err := os.OpenFile(dir+"/low", os.O_WRONLY, 0)
		do(t, err)
		_, err = f.WriteString("x")
		do(t, err)
		if i < open {
			defer f.Close()
		} else {
			do(t, f.Close())
		}
	}
	for i := range files {
		b, err := os.ReadFile(fmt.Sprintf("%s/dir/%d/low", l.Mnt, i))
		do(t, err)
		if len(b) != 8<<10 || b[0] != 'x' {
			t.Fatalf("file %d: %d bytes, the first %q", i, len(b), b[0])
		}
	}
}
