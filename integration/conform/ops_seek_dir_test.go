package conform

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// entry is what getdents64 says of a name; off is where to go on after it, telldir's answer.
type entry struct {
	name string
	ino  uint64
	typ  byte
	off  int64
}

// someEntries reads what fits into size bytes.
func someEntries(t *testing.T, fd, size int) (out []entry) {
	t.Helper()
	buf := make([]byte, size)
	n, err := unix.Getdents(fd, buf)
	must(t, err)
	for b := buf[:n]; len(b) > 0; {
		reclen := binary.NativeEndian.Uint16(b[16:])
		name, _, _ := strings.Cut(string(b[19:reclen]), "\x00")
		out = append(out, entry{name, binary.NativeEndian.Uint64(b), b[18], int64(binary.NativeEndian.Uint64(b[8:]))})
		b = b[reclen:]
	}
	return out
}

// allEntries reads to the end, in small pieces.
func allEntries(t *testing.T, fd int) (out []entry) {
	t.Helper()
	for {
		some := someEntries(t, fd, 1024)
		if len(some) == 0 {
			return out
		}
		out = append(out, some...)
	}
}

// TestSeekDir: a place in a directory (telldir) stays good while names come and go: what was there all the
// time is found once.
func TestSeekDir(t *testing.T) {
	const each = 300
	var top, bottom strings.Builder
	for i := range each {
		fmt.Fprintf(&top, "f dir/top%d 1\n", i)
		fmt.Fprintf(&bottom, "f dir/bottom%d 1\nf dir/both%d 1\n", i, i)
		fmt.Fprintf(&top, "f dir/both%d 2\n", i)
	}
	everywhere(t, []string{top.String(), bottom.String()}, func(t *testing.T, v *view) {
		p := func(kind string, i int) string { return v.path(fmt.Sprintf("dir/%s%d", kind, i)) }
		for i := range each {
			must(t, os.WriteFile(p("new", i), nil, 0o644))
		}
		fd := openFD(t, v.path("dir"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		whole := allEntries(t, fd)
		if len(whole) != 4*each+2 {
			t.Fatalf("%d entries, want %d", len(whole), 4*each+2)
		}
		// Any place of the listing can be gone back to, in any order.
		for _, i := range []int{len(whole) - 2, 1, len(whole) / 2, 7, 0} {
			at, err := unix.Seek(fd, whole[i].off, 0)
			must(t, err)
			if at != whole[i].off {
				t.Errorf("seek to %d ends at %d", whole[i].off, at)
			}
			if got := someEntries(t, fd, 1024); len(got) == 0 || got[0].name != whole[i+1].name {
				t.Fatalf("after %q comes %v, want %q", whole[i].name, got, whole[i+1].name)
			}
		}
		_, err := unix.Seek(fd, whole[len(whole)-1].off, 0)
		must(t, err)
		if got := someEntries(t, fd, 1024); len(got) != 0 {
			t.Errorf("after the end: %v", got)
		}
		wants(t, "before the beginning", func() error { _, err := unix.Seek(fd, -1, 0); return err }(), unix.EINVAL)

		// Half of it is read, then names go and come on both sides of the place.
		_, err = unix.Seek(fd, 0, 0)
		must(t, err)
		seen := map[string]int{}
		var read []entry
		for len(read) < len(whole)/2 {
			read = append(read, someEntries(t, fd, 1024)...)
		}
		for _, e := range read {
			seen[e.name]++
		}
		gone, moved := map[string]bool{}, map[string]bool{}
		for i := range each {
			for _, kind := range []string{"top", "bottom", "both", "new"} {
				name := fmt.Sprintf("%s%d", kind, i)
				switch i % 5 {
				case 0:
					must(t, os.Remove(p(kind, i)))
					gone[name] = true
				case 1:
					must(t, os.Rename(p(kind, i), p(kind+"-renamed", i)))
					moved[name] = true
				case 2: // made again: a new entry, or the old one
					must(t, os.Remove(p(kind, i)), os.WriteFile(p(kind, i), []byte("again"), 0o644))
					moved[name] = true
				case 3: // copied up
					must(t, os.WriteFile(p(kind, i), []byte("changed"), 0o644))
				}
			}
			must(t, os.WriteFile(p("added", i), nil, 0o644))
		}
		for _, e := range allEntries(t, fd) {
			seen[e.name]++
		}
		for _, e := range whole {
			if n := seen[e.name]; n != 1 && !gone[e.name] && !moved[e.name] {
				t.Errorf("%s was there all the time, and found %d times", e.name, n)
			} else if n > 1 && v.kind != "plain" && gone[e.name] {
				t.Errorf("%s was removed, and found %d times", e.name, n)
			}
		}
		// rewinddir shows how it is now.
		_, err = unix.Seek(fd, 0, 0)
		must(t, err)
		now := map[string]int{}
		for _, e := range allEntries(t, fd) {
			now[e.name]++
			if e.name != ".." && stat(t, v.path("dir/"+e.name)).Ino != e.ino {
				t.Errorf("%s: readdir and stat have different inode numbers", e.name)
			}
		}
		for i := range each {
			for _, kind := range []string{"top", "bottom", "both", "new", "added"} {
				name := fmt.Sprintf("%s%d", kind, i)
				if want := !(kind != "added" && i%5 < 2); want != (now[name] == 1) {
					t.Errorf("%s: found %d times after rewinding", name, now[name])
				}
			}
		}
		if want := 4*each - 4*each/5 + each + 2; len(now) != want {
			t.Errorf("%d names, want %d", len(now), want)
		}
		// rm -r with a descriptor that is never rewound.
		_, err = unix.Seek(fd, 0, 0)
		must(t, err)
		for some := someEntries(t, fd, 512); len(some) > 0; some = someEntries(t, fd, 512) {
			for _, e := range some {
				if e.name != "." && e.name != ".." {
					must(t, unix.Unlinkat(fd, e.name, 0))
				}
			}
		}
		must(t, unix.Rmdir(v.path("dir")))
		_, err = unix.Getdents(fd, make([]byte, 1024))
		wants(t, "list a removed directory", err, unix.ENOENT)
	})
}
