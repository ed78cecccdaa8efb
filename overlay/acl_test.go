package overlay

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Whoever asks for a default access list while it changes does not make others believe what was before.
func TestDefaultACLWhileItChanges(t *testing.T) {
	dir := t.TempDir()
	cfg := DefaultConfig()
	cfg.Lowers, cfg.Upper, cfg.Work = []string{dir + "/lower"}, dir+"/upper", dir+"/work"
	cfg.Log = t.Logf
	for _, d := range []string{"/lower", "/lower/d", "/upper", "/work"} {
		if err := os.Mkdir(dir+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fs, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	n, err := find(fs, "d")
	if err != nil {
		t.Fatal(err)
	}
	// Version 2; owner, group and others may read and search.
	acl := []byte{2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 5, 0, 255, 255, 255, 255, 32, 0, 5, 0, 255, 255, 255, 255}
	if err := fs.Setxattr(nil, n, aclDefault, acl, 0, false); err == unix.EOPNOTSUPP {
		t.Skip("no access lists here")
	}
	change := map[bool]func() error{
		true:  func() error { return fs.Setxattr(nil, n, aclDefault, acl, 0, false) },
		false: func() error { return fs.Removexattr(nil, n, aclDefault) },
	}
	for _, there := range []bool{false, true, false} {
		fs.crashAt = func(string) {
			fs.crashAt = nil
			if err := change[there](); err != nil {
				t.Error(err)
			}
		}
		fs.hasDefaultACL(n) // either answer is right
		if fs.crashAt != nil {
			t.Fatal("it was known already")
		}
		if fs.hasDefaultACL(n) != there {
			t.Errorf("there is a default access list: %v; new objects have it: %v", there, !there)
		}
		n.d.aclChanged() // ask again
	}
}
