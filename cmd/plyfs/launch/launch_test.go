package launch

import (
	"strings"
	"testing"
)

// Who asks for help, for the version, or to stay in the foreground is left to main, whose output and exit code count.
func TestBackground(t *testing.T) {
	for _, tt := range []struct {
		line string
		want bool
	}{
		{"plyfs mount --lower a --upper=b m", true},
		{"plyfs mount -v -o lowerdir=a m", true},
		{"plyfs mount", true}, // wrong, and the daemon says so
		{"plyfs -o lowerdir=a m", true},
		{"plyfs -olowerdir=a m -v", true},
		{"fuse-overlayfs -o lowerdir=a m", true},
		{"/sbin/mount.fuse.plyfs none m -o lowerdir=a", true},

		{"plyfs", false},
		{"plyfs umount m", false},
		{"plyfs image ls", false},
		{"plyfs --version", false},
		{"plyfs a m -o lowerdir=a", false}, // a may be a subcommand
		{"plyfs mount --help", false},
		{"plyfs mount --lower a -h m", false},
		{"plyfs mount --lower a m -f", false},
		{"plyfs mount --lower a m -vf", false},
		{"plyfs mount --lower a m --foreground", false},
		{"plyfs mount --lower a m --foreground=true", false},
		{"plyfs mount --lower a -- m -f", false},
		{"plyfs -o lowerdir=a -d m", false},
		{"fuse-overlayfs -o lowerdir=a --debug m", false},
		{"fuse-overlayfs --version", false},
		{"fuse-overlayfs -V", false},
		{"fuse-overlayfs", false},
	} {
		if got := Background(strings.Fields(tt.line)); got != tt.want {
			t.Errorf("%s: %v", tt.line, got)
		}
	}
}

func TestReadReport(t *testing.T) {
	for _, tt := range []struct {
		in    string
		code  int
		ended bool
	}{
		{"ready\n", 0, true},
		{"say hello\nready\n", 0, true},
		{"say hello\nfail 1 /a: no such directory\n", 1, true},
		{"fail 2 option bogus: unknown\n", 2, true},
		{"fail 0 never\n", 1, true},
		{"", 1, false},
		{"say hel", 1, false},
	} {
		if code, ended := readReport(strings.NewReader(tt.in)); code != tt.code || ended != tt.ended {
			t.Errorf("%q: %d, %v", tt.in, code, ended)
		}
	}
}
