package cell

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The files of users and groups are the image's, the name is from the command line or the image's configuration.
func FuzzLookUp(f *testing.F) {
	f.Add("app", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n", "root:x:0:\nvideo:x:44:app\n")
	f.Add("1000:video", "a:b:c\n::::::\n", ":::\nvideo:x:44:,,\n")
	f.Add(":", "", "")
	f.Fuzz(func(t *testing.T, spec, users, groups string) {
		dir := t.TempDir()
		open := func(path string) (*os.File, error) {
			text := users
			if path == group {
				text = groups
			}
			at := filepath.Join(dir, filepath.Base(path))
			if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			return os.Open(at)
		}
		who, err := lookUp(spec, open)
		if err != nil {
			return
		}
		if who.UID > 1<<31-1 || who.GID > 1<<31-1 || who.Home == "" {
			t.Errorf("%q is %+v", spec, who)
		}
		name, _, _ := strings.Cut(spec, ":")
		if who.UID == 0 && name != "" && strings.Trim(name, "0") != "" && !strings.Contains(users, name) {
			t.Errorf("%q, whom nobody lists, is root", spec)
		}
	})
}
