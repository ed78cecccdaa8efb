package integration

import (
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// With noatime reading leaves the access time of a file, whoever reads it: the daemon, or the kernel by itself.
func TestNoAtime(t *testing.T) {
	harness.NeedRoot(t)
	old := time.Unix(1e9, 0)
	accessed := func(path string) bool {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Atim.Sec != old.Unix()
	}
	read := func(path string) {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := io.Copy(io.Discard, f); err != nil {
			t.Error(err)
		}
	}
	for _, mode := range []string{"cached", "passthrough", "shared"} {
		for _, noatime := range []bool{true, false} {
			l := harness.NewLayers(t, "d src")
			harness.Make(t, l.Root, "f upper/upper 2\nf upper/written 2\nd src\nf src/file 3")
			options := "mode=" + mode + ",bind=" + l.Root + "/src:/src"
			if mode == "shared" {
				options = "mode=" + mode // with grafts there is no such mode
			}
			if noatime {
				options += ",noatime"
			}
			optioned(t, l, options)
			files := map[string]string{"upper": l.Upper + "/upper", "written": l.Upper + "/written"}
			if mode != "shared" {
				files["src/file"] = l.Root + "/src/file"
			}
			patch(t, l.Mnt+"/written", 0, "X")
			for name, path := range files {
				if err := os.Chtimes(l.Mnt+"/"+name, old, old); err != nil {
					t.Fatal(err)
				}
				read(l.Mnt + "/" + name)
				if accessed(path) == noatime || accessed(l.Mnt+"/"+name) == noatime {
					t.Errorf("%s: %s was read, and its access time changed: %v, %v in the view", options, name, accessed(path), accessed(l.Mnt+"/"+name))
				}
			}
			plyfs(t, "umount", l.Mnt)
		}
	}
}
