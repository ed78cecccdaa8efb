package copyup

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// lowerChanges are what somebody may do to a layer that is in use, or was, and should not.
var lowerChanges = map[string]func(t *testing.T, path string){
	"written to": func(t *testing.T, path string) {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		defer f.Close()
		_, err = f.WriteAt([]byte("changed"), 500_000)
		must(t, err)
		must(t, os.Chtimes(path, time.Time{}, time.Now().Add(time.Second)))
	},
	"written to, and its time set back": func(t *testing.T, path string) {
		st, err := os.Stat(path)
		must(t, err)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		defer f.Close()
		_, err = f.WriteAt([]byte("changed"), 500_000)
		must(t, err)
		must(t, os.Chtimes(path, time.Time{}, st.ModTime()))
	},
	"replaced by one that looks the same": func(t *testing.T, path string) {
		st, err := os.Stat(path)
		must(t, err)
		other := harness.Bytes(st.Size())
		other[500_000]++
		must(t, os.WriteFile(path+"2", other, 0o644))
		must(t, os.Chtimes(path+"2", st.ModTime(), st.ModTime()))
		must(t, os.Rename(path+"2", path))
	},
	"cut":     func(t *testing.T, path string) { must(t, os.Truncate(path, 100_000)) },
	"removed": func(t *testing.T, path string) { must(t, os.Remove(path)) },
}

// TestLowerChanged: what was written stays readable, and the rest is an error, never a mixture. It is
// said, with the path, in the log, by plyfs settle, and at the unmount, which leaves the mark.
func TestLowerChanged(t *testing.T) {
	for name, change := range lowerChanges {
		t.Run(name, func(t *testing.T) {
			l := harness.NewLayers(t, "F dir/big 1M\nF dir/fine 1M")
			block := string(make([]byte, 4096))
			m := l.Plyfs(t, manual...)
			writeAt(t, m.Path("dir/big"), make([]byte, 1<<20), block, 8192)
			want := writeAt(t, m.Path("dir/fine"), harness.Bytes(1<<20), "x", 8192)
			m.Close(t)
			change(t, l.Lowers[0]+"/dir/big")

			m = l.Plyfs(t, "--settle-budget", "off")
			same(t, "what was written", readPart(t, m.Path("dir/big"), 8192, 4096), []byte(block))
			f, err := os.OpenFile(m.Path("dir/big"), os.O_RDWR, 0)
			must(t, err)
			defer f.Close()
			if _, err := f.ReadAt(make([]byte, 4096), 500_000); !errors.Is(err, unix.EIO) {
				t.Errorf("read: %v", err)
			}
			if _, err := f.WriteAt([]byte("part of a block"), 500_000); !errors.Is(err, unix.EIO) {
				t.Errorf("write: %v", err)
			}
			if _, err := f.WriteAt(make([]byte, 4096), 40960); err != nil {
				t.Errorf("write of a whole block: %v", err)
			}
			must(t, os.Chmod(m.Path("dir/big"), 0o600))
			if out, err := harness.Run("settle", m.Dir); harness.ExitCode(err) != 1 {
				t.Errorf("plyfs settle: %v\n%s", err, out)
			}
			if left := unfinished(t, l.Upper); len(left) != 1 || left[0] != "dir/big" {
				t.Errorf("unfinished: %q", left)
			}
			must(t, f.Close())
			m.Close(t)
			log, err := os.ReadFile(l.Root + "/log")
			must(t, err)
			for _, part := range []string{`"/dir/big"`, "has changed", "bring the layer back", "1 partly copied files could not be completed"} {
				if !strings.Contains(string(log), part) {
					t.Errorf("the log does not say %q:\n%s", part, log)
				}
			}
			kernelRefuses(t, l)

			// It can be given up.
			m = l.Plyfs(t, "--settle-budget", "off")
			must(t, os.Truncate(m.Path("dir/big"), 0))
			m.Close(t)
			if left := unfinished(t, l.Upper); len(left) > 0 || marked(l) {
				t.Errorf("unfinished: %v, marked: %v", left, marked(l))
			}
			k := l.Kernel(t)
			sameBytes(t, k.Path("dir/big"), nil)
			sameBytes(t, k.Path("dir/fine"), want)
		})
	}
}

// TestLowerChangedMeanwhile is the same while the file is in use.
func TestLowerChangedMeanwhile(t *testing.T) {
	for _, name := range []string{"written to", "written to, and its time set back", "cut"} {
		t.Run(name, func(t *testing.T) {
			l := harness.NewLayers(t, "F big 1M")
			m := l.Plyfs(t, manual...)
			writeAt(t, m.Path("big"), make([]byte, 1<<20), "x", 8192)
			readPart(t, m.Path("big"), 65536, 4096) // the lower file is open now
			lowerChanges[name](t, l.Lowers[0]+"/big")
			f, err := os.OpenFile(m.Path("big"), os.O_RDONLY|unix.O_DIRECT, 0)
			must(t, err)
			defer f.Close()
			if _, err := f.ReadAt(aligned(4096), 131072); !errors.Is(err, unix.EIO) {
				t.Errorf("read: %v", err)
			}
			if _, err := harness.Run("settle", m.Dir); harness.ExitCode(err) != 1 {
				t.Errorf("plyfs settle: %v", err)
			}
		})
	}
}
