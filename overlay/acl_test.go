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
	stop, stopped := make(chan struct{}), make(chan struct{})
	for range 2 {
		go func() {
			defer func() { stopped <- struct{}{} }()
			for {
				select {
				case <-stop:
					return
				default:
					fs.hasDefaultACL(n)
				}
			}
		}()
	}
	wrong := 0
	for range 3000 {
		if err := fs.Setxattr(nil, n, aclDefault, acl, 0, false); err != nil {
			t.Fatal(err)
		}
		if !fs.hasDefaultACL(n) {
			wrong++
		}
		if err := fs.Removexattr(nil, n, aclDefault); err != nil {
			t.Fatal(err)
		}
		if fs.hasDefaultACL(n) {
			wrong++
		}
	}
	close(stop)
	<-stopped
	<-stopped
	if wrong > 0 {
		t.Errorf("wrong %d times", wrong)
	}
}
