package integration

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// What takes root of the machine is refused to others, and does not just do something else, or fail later.
func TestOptionsOfRoot(t *testing.T) {
	l := harness.UserLayers(t, "f a 1\nF big 1M")
	dirs := "lowerdir=" + l.Lowers[0] + ",upperdir=" + l.Upper + ",workdir=" + l.Work
	for option, want := range map[string]string{
		"mode=passthrough":    "mode passthrough: the kernel takes files from root of the machine only",
		"xattr_permissions=1": l.Upper + ": owners cannot be kept in security.fuseoverlayfs.override_stat here (operation not permitted); use xattr_permissions=2",
	} {
		out, err := asUser(t, l, "-o", dirs+","+option, l.Mnt)
		if harness.ExitCode(err) != 1 || out != "plyfs: "+want+"\n" && !strings.HasPrefix(out, "plyfs: "+want+";") || mounted(t, l.Mnt) {
			t.Errorf("%s: %v, %q", option, err, out)
		}
		line := harness.Binary() + " -o " + dirs + "," + option + " " + l.Mnt
		if b, err := harness.AsUser(l.Root, "unshare", "-Urm", "sh", "-c", line).CombinedOutput(); harness.ExitCode(err) != 1 || string(b) != out {
			t.Errorf("%s as root of a user namespace: %v, %q", option, err, b)
		}
	}
	if got := names(t, l.Upper) + names(t, l.Work); got != "" {
		t.Errorf("they left %q", got)
	}
	// Metadata-only files of an ordinary user are none the kernel would read.
	out, err := asUser(t, l, "-o", dirs+",metacopy=on", l.Mnt)
	if err != nil || !strings.Contains(out, "metacopy=on has no effect") || strings.Count(out, "\n") != 1 {
		t.Fatalf("metacopy=on: %v, %q", err, out)
	}
	script(t, harness.AsUser(l.Root, "sh"), "chmod 600 mnt/big; "+harness.Binary()+" umount mnt")
	if _, err := unix.Lgetxattr(l.Upper+"/big", "user.overlay.metacopy", nil); err != unix.ENODATA {
		t.Errorf("a metadata-only file is left: %v", err)
	}
}

// The line that says why is on standard error also where messages go to a file.
func TestWhyDespiteLog(t *testing.T) {
	l := harness.NewLayers(t, "f a 1")
	log := l.Root + "/log"
	for _, args := range [][]string{{"mount", "-f"}, {"mount"}} {
		for _, flag := range []bool{true, false} {
			cmd := exec.Command(harness.Binary(), append(args, "--lower", l.Root+"/no", l.Mnt)...)
			if flag {
				cmd.Args = append(cmd.Args, "--log", log)
			} else {
				cmd.Env = append(os.Environ(), "PLYFS_LOG="+log)
			}
			out, err := cmd.CombinedOutput()
			b, _ := os.ReadFile(log)
			const want = "/no: lower layer does not exist"
			if harness.ExitCode(err) != 1 || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), want) || !strings.Contains(string(b), want) {
				t.Errorf("%s: %v, %q, the log has %q", cmd, err, out, b)
			}
			_ = os.Remove(log)
		}
	}
}

// Where marks are kept is printed with -v, also where none can be made.
func TestVerboseMarks(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "f a 1")
	for options, want := range map[string]string{"": "marks in trusted.overlay.", "userxattr": "marks in user.overlay."} {
		for _, upper := range []string{"", "upperdir=" + l.Upper + ",workdir=" + l.Work + ","} {
			if out := plyfs(t, "-v", "-o", "lowerdir="+l.Lowers[0]+","+upper+options, l.Mnt); !strings.Contains(out, want) {
				t.Errorf("%s%s: %s", upper, options, out)
			}
			plyfs(t, "umount", l.Mnt)
		}
	}
}
