package differ

import (
	"fmt"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// hows are the ways to open a file.
var hows = map[string]int{
	"r": unix.O_RDONLY, "w": unix.O_WRONLY, "rw": unix.O_RDWR,
	"a": unix.O_WRONLY | unix.O_APPEND, "t": unix.O_RDWR | unix.O_TRUNC, "c": unix.O_RDWR | unix.O_CREAT,
}

// openSlot opens a file that stays open.
func (v *view) openSlot(slot, p string, flags int) error {
	if h := v.slots[slot]; h != nil {
		_ = h.close()
		delete(v.slots, slot)
		delete(v.walks, slot)
	}
	h, err := v.t.open(p, flags, 0o640)
	if err == nil {
		v.slots[slot] = h
	}
	return err
}

func (v *view) doSlot(name string, h handle, a []string) (string, error) {
	switch name {
	case "fread":
		buf := make([]byte, num(a[2]))
		n, err := h.pread(buf, num(a[1]))
		return sum(buf[:max(n, 0)]), err
	case "fwrite":
		return "", writeAll(h, fill(num(a[2]), num(a[3])), num(a[1]))
	case "ftrunc":
		return "", h.truncate(num(a[1]))
	case "fpunch":
		return "", v.allocate(h, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, a)
	case "fzero":
		return "", v.allocate(h, unix.FALLOC_FL_ZERO_RANGE, a)
	case "falloc":
		return "", v.allocate(h, 0, a)
	case "fstat":
		st, err := h.stat()
		if err != nil {
			return "", err
		}
		return v.attrs(&st), nil
	case "fchmod":
		return "", h.chmod(uint32(num(a[1])))
	case "fchown":
		return "", h.chown(int(num(a[1])), int(num(a[2])))
	case "futime":
		return "", h.utimens([2]unix.Timespec{timeOf(a[1]), timeOf(a[2])})
	case "flink":
		return "", h.link(a[1])
	case "fsync":
		return "", h.sync()
	case "fsetx":
		return "", h.setxattr(a[1], []byte(a[2]))
	case "fls":
		delete(v.walks, a[0]) // reads all, and whoever read in pieces finds himself at the end
		ents, err := h.entries()
		if err != nil {
			return "", err
		}
		var out []string
		for _, e := range sorted(ents) {
			out = append(out, fmt.Sprintf("%s/%d", e.name, e.typ))
		}
		return strings.Join(out, " "), nil
	case "fdir", "fsome", "fend":
		w := v.walks[a[0]]
		if w == nil || name == "fdir" {
			ents, err := h.entries()
			if err != nil {
				return "", err
			}
			w = &walk{seen: map[string]int{}, first: map[dirent]bool{}}
			for _, e := range ents {
				w.first[e] = true
			}
			v.walks[a[0]] = w
			return "", h.rewind()
		}
		if name == "fend" {
			delete(v.walks, a[0])
			return w.end(h)
		}
		_, err := w.some(h)
		return "", err
	}
	panic("no operation " + name)
}

// walk is a directory that is read in pieces while it changes.
type walk struct {
	first map[dirent]bool // what there was
	seen  map[string]int  // how often a name came
}

func (w *walk) some(h handle) (int, error) {
	ents, err := h.some()
	for _, e := range ents {
		w.seen[e.name]++
	}
	return len(ents), err
}

// end reads the rest: what there was all the time must have come once, by POSIX. What was there at the start and at the end is
// taken for it.
func (w *walk) end(h handle) (string, error) {
	for {
		n, err := w.some(h)
		if err != nil {
			return "", err
		}
		if n == 0 {
			break
		}
	}
	ents, err := h.entries()
	if err != nil {
		return "", err
	}
	var odd []string
	for _, e := range ents {
		if n := w.seen[e.name]; w.first[e] && n != 1 {
			odd = append(odd, fmt.Sprintf("%s came %d times", e.name, n))
		}
	}
	sort.Strings(odd)
	return strings.Join(odd, ", "), nil
}

// timeOf reads now, omit or seconds.
func timeOf(s string) unix.Timespec {
	switch s {
	case "now":
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case "omit":
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	return unix.Timespec{Sec: num(s), Nsec: 789}
}
