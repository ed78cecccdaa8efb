package integration

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// Pages that are refused when the kernel writes them back, since the file is append-only, are not shown any longer, and
// what is appended later is written.
func TestRefusedPages(t *testing.T) {
	harness.NeedRoot(t)
	overwrite := map[string]func(f *os.File) error{
		"a mapping": func(f *os.File) error {
			b, err := unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				return err
			}
			defer unix.Munmap(b)
			copy(b, "BAD")
			return unix.Msync(b, unix.MS_SYNC)
		},
		"a write": func(f *os.File) error {
			if _, err := f.WriteString("BAD"); err != nil {
				return err
			}
			return f.Sync()
		},
	}
	for how, options := range map[string]string{"a mapping": "", "a write": "writeback=1"} {
		l := harness.NewLayers(t, "f log once")
		if out, err := exec.Command("chattr", "+a", l.Lowers[0]+"/log").CombinedOutput(); err != nil {
			t.Skipf("chattr: %v: %s", err, out)
		}
		optioned(t, l, options)
		f, err := os.OpenFile(l.Mnt+"/log", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := overwrite[how](f); err == nil {
			t.Errorf("%s: an append-only file was overwritten", how)
		}
		f.Close()
		shows := func(want string) {
			t.Helper()
			waitFor(t, how+": the view to show "+want, func() bool {
				b, err := os.ReadFile(l.Mnt + "/log")
				return err == nil && string(b) == want
			})
		}
		shows("once")
		add, err := os.OpenFile(l.Mnt+"/log", os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := add.WriteString(" more"); err != nil {
			t.Errorf("%s: %v", how, err)
		}
		if err := add.Close(); err != nil {
			t.Errorf("%s: %v", how, err)
		}
		shows("once more")
		plyfs(t, "umount", l.Mnt)
		if b, err := os.ReadFile(l.Upper + "/log"); err != nil || string(b) != "once more" {
			t.Errorf("%s: the upper has %q, %v", how, b, err)
		}
	}
}
