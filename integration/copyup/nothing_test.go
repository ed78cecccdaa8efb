package copyup

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// TestNothingIsCopied: what needs no data of the lower file copies none.
func TestNothingIsCopied(t *testing.T) {
	const size = 8 << 20
	open := func(flags int) func(path string) error {
		return func(path string) error {
			fd, err := unix.Open(path, flags, 0)
			unix.Close(fd)
			return err
		}
	}
	cases := []struct {
		name   string
		size   int64 // of the file after it
		change bool  // it is in the upper after it
		do     func(path string) error
	}{
		{"O_RDWR", size, false, open(unix.O_RDWR)},
		{"O_APPEND", size, false, open(unix.O_WRONLY | unix.O_APPEND)},
		{"O_TRUNC", 0, true, open(unix.O_WRONLY | unix.O_TRUNC)},
		{"truncate", 0, true, func(path string) error { return unix.Truncate(path, 0) }},
		{"chmod", size, true, func(path string) error { return unix.Chmod(path, 0o600) }},
		{"chown", size, true, func(path string) error { return unix.Chown(path, 1, 2) }},
		{"utimes", size, true, func(path string) error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Sec: 1}, {Sec: 2}}, 0)
		}},
		{"setxattr", size, true, func(path string) error { return unix.Setxattr(path, "user.a", []byte("1"), 0) }},
		{"rename", size, true, func(path string) error { return unix.Rename(path, path+".moved") }},
		{"link", size, true, func(path string) error { return unix.Link(path, path+".moved") }},
	}
	for _, mode := range []string{"cached", "passthrough"} {
		t.Run(mode, func(t *testing.T) {
			harness.NeedRoot(t)
			text := ""
			for _, c := range cases {
				text += "F " + c.name + " 8M\n"
			}
			l := harness.NewLayers(t, text)
			m := l.Plyfs(t, append([]string{"--mode", mode}, manual...)...)
			w := events(t, m)
			for _, c := range cases {
				if mode == "passthrough" && (c.name == "O_RDWR" || c.name == "O_APPEND") {
					continue // the kernel may write without a word: the file is copied at open
				}
				must(t, c.do(m.Path(c.name)))
				copied := int64(0)
				for _, ev := range w.next(t) {
					copied += ev.BytesCopied
				}
				if copied != 0 {
					t.Errorf("%s copied %d bytes", c.name, copied)
				}
				name := c.name
				if _, err := os.Stat(m.Path(name)); err != nil {
					name += ".moved"
				}
				st, err := os.Stat(m.Path(name))
				must(t, err)
				if st.Size() != c.size {
					t.Errorf("%s: %d bytes, want %d", c.name, st.Size(), c.size)
				}
				if _, err := os.Lstat(l.Upper + "/" + name); (err == nil) != c.change {
					t.Errorf("%s: in the upper: %v", c.name, err)
				}
				defer func() { // after the others: in passthrough mode reading completes a file
					if c.size > 0 {
						sameBytes(t, m.Path(name), harness.Bytes(c.size))
					}
				}()
			}
		})
	}
}

// TestTruncatingOpenOfAnOpenFile: nor does O_TRUNC copy anything while somebody reads the lower file, who goes on
// with it in passthrough mode.
func TestTruncatingOpenOfAnOpenFile(t *testing.T) {
	for _, mode := range []string{"cached", "passthrough", "shared"} {
		t.Run(mode, func(t *testing.T) {
			harness.NeedRoot(t)
			l := harness.NewLayers(t, "F file 8M")
			m := l.Plyfs(t, append([]string{"--mode", mode}, manual...)...)
			w := events(t, m)
			old, err := os.Open(m.Path("file"))
			must(t, err)
			defer old.Close()
			must(t, os.WriteFile(m.Path("file"), []byte("new"), 0o644)) // O_WRONLY, O_CREAT, O_TRUNC
			for _, ev := range w.next(t) {
				if ev.BytesCopied != 0 {
					t.Errorf("%s copied %d bytes", ev.Cause, ev.BytesCopied)
				}
			}
			sameBytes(t, m.Path("file"), []byte("new"))
			sameBytes(t, l.Lowers[0]+"/file", harness.Bytes(8<<20))
			if st, err := old.Stat(); err != nil || st.Size() != 3 {
				t.Errorf("the old descriptor shows %d bytes, %v", st.Size(), err)
			}
			want := "new"
			if mode == "passthrough" {
				want = string(harness.Bytes(8 << 20)[:3])
			}
			got := make([]byte, 3)
			if _, err := old.ReadAt(got, 0); err != nil || string(got) != want {
				t.Errorf("the old descriptor reads %q, %v, not %q", got, err, want)
			}
		})
	}
}
