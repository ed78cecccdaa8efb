package cell

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestLookUp(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(root+"/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\n# nothing\napp:x:1000:1001:App:/home/app:/bin/sh\n7:x:70:71::/seven:\nhomeless:x:8:8:::\nbad:x:y:z:::\nshort:x:9:10\nold:x:11:13::/dos\r\n",
		"group":  "root:x:0:\napp:x:1001:\naudio:x:29:other,app\nvideo:x:44:app\n12:x:90:\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		spec string
		want *Identity // nil: an error
	}{
		{"", &Identity{Home: "/root"}},
		{"root", &Identity{Home: "/root"}},
		{"app", &Identity{UID: 1000, GID: 1001, Groups: []uint32{29, 44}, Home: "/home/app"}},
		{"1000", &Identity{UID: 1000, GID: 1001, Groups: []uint32{29, 44}, Home: "/home/app"}},
		{"app:video", &Identity{UID: 1000, GID: 44, Home: "/home/app"}},
		{"app:55", &Identity{UID: 1000, GID: 55, Home: "/home/app"}},
		{"4321", &Identity{UID: 4321, Home: "/"}},
		{"4321:audio", &Identity{UID: 4321, GID: 29, Home: "/"}},
		{"7", &Identity{UID: 7, Home: "/"}}, // digits are a number, even where they are somebody's name
		{"70", &Identity{UID: 70, GID: 71, Home: "/seven"}},
		{"app:12", &Identity{UID: 1000, GID: 12, Home: "/home/app"}},
		{"app:", &Identity{UID: 1000, GID: 1001, Groups: []uint32{29, 44}, Home: "/home/app"}}, // no group is said
		{":", &Identity{Home: "/root"}},
		{"short", &Identity{UID: 9, GID: 10, Home: "/"}}, // lines without the last fields
		{"old", &Identity{UID: 11, GID: 13, Home: "/dos"}},
		{"homeless", &Identity{UID: 8, GID: 8, Home: "/"}},
		{"nobody", nil},
		{"bad", nil},
		{"app:nogroup", nil},
		{"-1", nil},
		{"4294967296", nil},
	} {
		got, err := LookUp(test.spec, root)
		if (err != nil) != (test.want == nil) {
			t.Errorf("%q: error %v", test.spec, err)
			continue
		}
		if err == nil {
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%q: want (-), got (+):\n%s", test.spec, diff)
			}
		}
	}
}

// TestLookUpHostile: what an image puts in the place of its files neither hangs nor leads
// to the host's.
func TestLookUpHostile(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(root+"/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := LookUp("0", root); err != nil || got.Home != "/root" {
		t.Errorf("without files: %v, %v", got, err)
	}
	if err := unix.Mkfifo(root+"/etc/passwd", 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LookUp("root", root); err == nil {
		t.Error("a fifo as /etc/passwd: no error")
	}
	if err := os.Remove(root + "/etc/passwd"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", root+"/etc/passwd"); err != nil {
		t.Fatal(err)
	}
	if got, err := LookUp("daemon", root); err == nil {
		t.Errorf("a link to /etc/passwd was followed to the host's: %v", got)
	}
}
