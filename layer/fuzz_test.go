package layer

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever a filesystem answers to getdents64, parsing ends, and gives no name that is none.
func FuzzDirents(f *testing.F) {
	entry := func(name string) []byte {
		b := make([]byte, 19, 19+len(name)+1)
		b[0], b[18] = 7, unix.DT_REG
		b[16] = byte(19 + len(name) + 1)
		return append(append(b, name...), 0)
	}
	f.Add(entry("a"))
	f.Add(append(append(entry("."), entry("..")...), entry("name")...))
	f.Add(entry("")[:19])
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		_ = parseDirents(b, func(name []byte, ino uint64, typ uint8) error {
			n += 20
			if len(name) == 0 || bytes.IndexByte(name, 0) >= 0 || string(name) == "." || string(name) == ".." {
				t.Fatalf("name %q", name)
			}
			return nil
		})
		if n > len(b) {
			t.Fatalf("%d entries in %d bytes", n/20, len(b))
		}
	})
}
