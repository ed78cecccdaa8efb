package fusefs_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
	"github.com/plyfs/plyfs/overlay/fusefs"
)

// panicky is a union in which some names cost a panic.
type panicky struct{ *overlay.FS }

func (p panicky) Lookup(c *overlay.Caller, d *overlay.Node, name string, a *overlay.Attr) (*overlay.Node, error) {
	if name == "panic-lookup" {
		panic("lookup")
	}
	return p.FS.Lookup(c, d, name, a)
}

func (p panicky) Mknod(c *overlay.Caller, d *overlay.Node, name string, mode, rdev uint32, a *overlay.Attr) (*overlay.Node, error) {
	if strings.HasPrefix(name, "panic") {
		panic("mknod")
	}
	return p.FS.Mknod(c, d, name, mode, rdev, a)
}

func (p panicky) Mkdir(c *overlay.Caller, d *overlay.Node, name string, mode uint32, a *overlay.Attr) (*overlay.Node, error) {
	if strings.HasPrefix(name, "panic") {
		panic("mkdir")
	}
	return p.FS.Mkdir(c, d, name, mode, a)
}

func (p panicky) Symlink(c *overlay.Caller, d *overlay.Node, name, target string, a *overlay.Attr) (*overlay.Node, error) {
	if strings.HasPrefix(name, "panic") {
		var none *overlay.Node
		_ = none.Mode() // a nil pointer, as real faults are
	}
	return p.FS.Symlink(c, d, name, target, a)
}

func (p panicky) Rename(c *overlay.Caller, d *overlay.Node, name string, to *overlay.Node, newName string, flags uint32) error {
	if strings.HasPrefix(newName, "panic") {
		panic("rename")
	}
	return p.FS.Rename(c, d, name, to, newName, flags)
}

func (p panicky) Getxattr(n *overlay.Node, name string, buf []byte) (int, error) {
	if name == "user.panic" {
		panic("getxattr")
	}
	return p.FS.Getxattr(n, name, buf)
}

// A panic in a request is that request's EIO, with a stack in the log, and others go on. What a request had
// locked in the union is TestPanicUnlocks' matter.
func TestPanicIsOneRequestsError(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts as root")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no FUSE here: ", err)
	}
	f.Close()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"lower/sub", "upper", "work", "mnt"} {
		if err := os.MkdirAll(at(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"lower/lookup", "lower/file", "lower/sub/file"} {
		if err := os.WriteFile(at(f), []byte("contents"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cfg := overlay.DefaultConfig()
	cfg.Lowers, cfg.Upper, cfg.Work, cfg.Mountpoint = []string{at("lower")}, at("upper"), at("work"), at("mnt")
	fs, err := overlay.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	var mu sync.Mutex
	var logged strings.Builder
	o := fusefs.DefaultOptions(fusefs.Cached)
	o.Log = func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		for _, a := range args {
			if b, ok := a.([]byte); ok {
				logged.Write(b)
			}
		}
	}
	server, err := fusefs.Mount(panicky{fs}, at("mnt"), o)
	if err != nil {
		t.Skip(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	defer func() {
		_ = fusefs.Detach(at("mnt"))
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	in := func(name string) string { return filepath.Join(at("mnt"), name) }
	panics := 0
	for round := range 3 {
		for what, do := range map[string]func() error{
			"lookup":   func() error { _, err := os.Lstat(in("panic-lookup")); return err },
			"mkdir":    func() error { return os.Mkdir(in("panic-mkdir"+string(rune('a'+round))), 0o755) },
			"mknod":    func() error { return unix.Mknod(in("panic-mknod"+string(rune('a'+round))), unix.S_IFREG|0o644, 0) },
			"symlink":  func() error { return os.Symlink("x", in("panic-symlink"+string(rune('a'+round)))) },
			"rename":   func() error { return unix.Rename(in("file"), in("panic-rename")) },
			"getxattr": func() error { _, err := unix.Getxattr(in("file"), "user.panic", nil); return err },
		} {
			done := make(chan error, 1)
			go func() { done <- do() }()
			select {
			case err := <-done:
				if e, ok := err.(*os.PathError); ok {
					err = e.Err
				}
				if e, ok := err.(*os.LinkError); ok {
					err = e.Err
				}
				if err != unix.EIO {
					t.Errorf("%s: %v, want EIO", what, err)
				}
			case <-time.After(time.Minute):
				abort(t, at("mnt"))
				t.Fatalf("%s hangs", what)
			}
			panics++
		}
		// Everything in the same directory works.
		done := make(chan error, 1)
		go func() {
			done <- func() error {
				name := in("made" + string(rune('a'+round)))
				if err := os.Mkdir(name, 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(name+"/f", []byte("x"), 0o644); err != nil {
					return err
				}
				if err := os.Rename(name+"/f", in("moved"+string(rune('a'+round)))); err != nil {
					return err
				}
				if err := os.WriteFile(in("file"), []byte("changed"), 0o644); err != nil {
					return err
				}
				if _, err := os.ReadDir(at("mnt")); err != nil {
					return err
				}
				return os.Remove(name)
			}()
		}()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("afterwards: %v", err)
			}
		case <-time.After(time.Minute):
			abort(t, at("mnt"))
			t.Fatal("afterwards something hangs")
		}
	}
	if n := server.Stat().Panics; n != uint64(panics) {
		t.Errorf("%d panics were counted, %d happened", n, panics)
	}
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(logged.String(), "panicky.Rename") {
		t.Error("the log has no stack")
	}
}

// abort ends a mount whose requests hang.
func abort(t *testing.T, mnt string) {
	var st unix.Stat_t
	if unix.Lstat(mnt, &st) == nil {
		_ = os.WriteFile("/sys/fs/fuse/connections/"+itoa(unix.Minor(st.Dev))+"/abort", []byte("1"), 0)
	}
}

func itoa(n uint32) string {
	b := []byte{}
	for ; n > 0 || len(b) == 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	return string(b)
}
