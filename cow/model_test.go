package cow

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// fileModel drives an unfinished file and a plain slice of bytes side by side.
type fileModel struct {
	w    *world
	name string
	p    *Partial
	want []byte
	seed byte
	zero bool // the filesystem has FALLOC_FL_ZERO_RANGE
}

const modelMax = 48 * minBlock

// offset draws places that matter: around blocks, around the end, anywhere.
func (m *fileModel) offset(t *rapid.T, label string) int64 {
	near := rapid.SampledFrom([]int64{0, 1, minBlock - 1, 100, 3000}).Draw(t, label+" in block")
	switch rapid.IntRange(0, 3).Draw(t, label+" kind") {
	case 0:
		return rapid.Int64Range(0, modelMax-1).Draw(t, label)
	case 1:
		return min(max(int64(len(m.want))+rapid.SampledFrom([]int64{-1, 0, 1, -minBlock, minBlock + 7}).Draw(t, label), 0), modelMax-1)
	default:
		return rapid.Int64Range(0, modelMax/minBlock-2).Draw(t, label)*minBlock + near
	}
}

func (m *fileModel) length(t *rapid.T) int64 {
	return rapid.SampledFrom([]int64{1, 10, minBlock - 1, minBlock, minBlock + 1, 3 * minBlock, 10*minBlock + 5}).Draw(t, "length")
}

func (m *fileModel) grow(size int64) {
	if n := size - int64(len(m.want)); n > 0 {
		m.want = append(m.want, make([]byte, n)...)
	}
}

func (m *fileModel) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"write": func(t *rapid.T) {
			off, n := m.offset(t, "offset"), m.length(t)
			m.seed += 16
			b := pattern(int(n), m.seed)
			if rapid.IntRange(0, 4).Draw(t, "zeros") == 0 {
				clear(b)
			}
			k, err := m.p.WriteAt(b, off)
			if err != nil || k != len(b) {
				t.Fatalf("write %d at %d: %d, %v", n, off, k, err)
			}
			m.grow(off + n)
			copy(m.want[off:], b)
		},
		"read": func(t *rapid.T) {
			off, n := m.offset(t, "offset"), m.length(t)
			b := make([]byte, n)
			k, err := m.p.ReadAt(b, off)
			if err != nil {
				t.Fatalf("read %d at %d: %v", n, off, err)
			}
			var want []byte
			if off < int64(len(m.want)) {
				want = m.want[off:min(off+n, int64(len(m.want)))]
			}
			if !bytes.Equal(b[:k], want) {
				t.Fatalf("read %d at %d: %d bytes, want %d; differ at %d", n, off, k, len(want), firstDiff(b[:k], want))
			}
		},
		"truncate": func(t *rapid.T) {
			size := m.offset(t, "size")
			if err := m.p.Truncate(size); err != nil {
				t.Fatalf("truncate to %d: %v", size, err)
			}
			m.grow(size)
			m.want = m.want[:size:size]
		},
		"punch": func(t *rapid.T) {
			off, n := m.offset(t, "offset"), m.length(t)
			if err := m.p.Fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n, nil); err != nil {
				t.Fatalf("punch %d at %d: %v", n, off, err)
			}
			if off < int64(len(m.want)) {
				clear(m.want[off:min(off+n, int64(len(m.want)))])
			}
		},
		"zero": func(t *rapid.T) {
			off, n := m.offset(t, "offset"), m.length(t)
			mode := uint32(unix.FALLOC_FL_ZERO_RANGE)
			keep := rapid.Bool().Draw(t, "keep size")
			if keep {
				mode |= unix.FALLOC_FL_KEEP_SIZE
			}
			if !m.zero {
				t.Skip("no FALLOC_FL_ZERO_RANGE")
			}
			if err := m.p.Fallocate(mode, off, n, nil); err != nil {
				t.Fatalf("zero %d at %d: %v", n, off, err)
			}
			if !keep {
				m.grow(off + n)
			}
			if off < int64(len(m.want)) {
				clear(m.want[off:min(off+n, int64(len(m.want)))])
			}
		},
		"allocate": func(t *rapid.T) {
			off, n := m.offset(t, "offset"), m.length(t)
			var mode uint32
			if rapid.Bool().Draw(t, "keep size") {
				mode = unix.FALLOC_FL_KEEP_SIZE
			} else {
				m.grow(off + n)
			}
			if err := m.p.Fallocate(mode, off, n, nil); err != nil {
				t.Fatalf("allocate %d at %d: %v", n, off, err)
			}
		},
		"collapse": func(t *rapid.T) {
			from := rapid.Int64Range(0, 5).Draw(t, "block") * minBlock
			if !m.zero || from+minBlock >= int64(len(m.want)) || rapid.IntRange(0, 9).Draw(t, "rarely") > 0 {
				t.Skip("not here")
			}
			if err := m.p.Fallocate(unix.FALLOC_FL_COLLAPSE_RANGE, from, minBlock, nil); err == unix.EOPNOTSUPP {
				t.Skip("no FALLOC_FL_COLLAPSE_RANGE")
			} else if err != nil {
				t.Fatalf("collapse at %d: %v", from, err)
			}
			m.want = append(bytes.Clone(m.want[:from]), m.want[from+minBlock:]...)
		},
		"seek": func(t *rapid.T) {
			off := m.offset(t, "offset")
			if err := m.checkSeek(off); err != nil {
				t.Fatal(err)
			}
		},
		"complete": func(t *rapid.T) {
			budget := rapid.SampledFrom([]int64{1, 1, 1, 8 * minBlock}).Draw(t, "budget")
			var a, b unix.Statx_t
			must(m.w.t, m.p.Stat(&a))
			if _, err := m.p.Complete(budget, nil); err != nil {
				t.Fatalf("complete: %v", err)
			}
			must(m.w.t, m.p.Stat(&b))
			if a.Mtime != b.Mtime || a.Mode != b.Mode || a.Size != b.Size {
				t.Fatalf("completing changed %+v to %+v", a, b)
			}
		},
		"remount": func(t *rapid.T) {
			// What is asked again comes from the disk, not from the page cache.
			if rapid.Bool().Draw(t, "drop caches") {
				must(m.w.t, m.p.Sync(false))
				_ = unix.Fadvise(m.p.fd, 0, 0, unix.FADV_DONTNEED)
			}
			m.p.Close()
			m.w.restart()
			m.p = m.w.partial(m.name)
		},
		"": func(t *rapid.T) {
			var st unix.Statx_t
			must(m.w.t, m.p.Stat(&st))
			if st.Size != uint64(len(m.want)) {
				t.Fatalf("size %d, want %d", st.Size, len(m.want))
			}
			got := make([]byte, len(m.want)+10)
			n, err := m.p.ReadAt(got, 0)
			if err != nil || !bytes.Equal(got[:n], m.want) {
				t.Fatalf("content: %d bytes, want %d, differ at %d: %v", n, len(m.want), firstDiff(got[:n], m.want), err)
			}
		},
	}
}

// checkSeek follows data and holes from off to the end: what a hole covers is zero.
func (m *fileModel) checkSeek(off int64) error {
	size := int64(len(m.want))
	for off < size {
		data, err := m.p.Seek(off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			data = size
		} else if err != nil || data < off || data >= size {
			return fmt.Errorf("data from %d of %d: %d, %v", off, size, data, err)
		}
		for i := off; i < data; i++ {
			if m.want[i] != 0 {
				return fmt.Errorf("hole %d .. %d is not zero at %d", off, data, i)
			}
		}
		if data == size {
			return nil
		}
		hole, err := m.p.Seek(data, unix.SEEK_HOLE)
		if err != nil || hole <= data || hole > size {
			return fmt.Errorf("hole from %d of %d: %d, %v", data, size, hole, err)
		}
		off = hole
	}
	for _, whence := range []int{unix.SEEK_DATA, unix.SEEK_HOLE} {
		if _, err := m.p.Seek(size, whence); err != unix.ENXIO {
			return fmt.Errorf("seek %d from the end: %v", whence, err)
		}
	}
	return nil
}

// lowerContent writes a lower file with holes and an odd end, and returns its bytes.
func lowerContent(t testing.TB, path string, size int64, holes bool) []byte {
	want := pattern(int(size), 1)
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(size))
	const piece = 3*minBlock + 1000
	for off := int64(0); off < size; off += piece {
		end := min(off+piece, size)
		if holes && off/piece%3 == 1 {
			clear(want[off:end])
			continue
		}
		_, err := f.WriteAt(want[off:end], off)
		must(t, err)
	}
	return want
}

func TestModel(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		zero := hasZeroRange(t, dir)
		w := newWorld(t, dir, Config{Threshold: 1})
		round := 0
		rapid.Check(t, func(rt *rapid.T) {
			round++
			name := fmt.Sprintf("f%d", round)
			size := rapid.SampledFrom([]int64{1, 4095, 4096, 30*minBlock + 1234, 40 * minBlock}).Draw(rt, "lower size")
			m := &fileModel{w: w, name: name, zero: zero}
			m.want = lowerContent(t, w.lowerPath(name), size, rapid.Bool().Draw(rt, "holes"))
			defer func() {
				if m.p != nil {
					m.p.Close()
				}
				os.Remove(w.upperPath(name))
				os.Remove(w.lowerPath(name))
			}()
			w.leave(name, &Want{Size: -1, Range: true, Cause: CauseWrite})
			m.p = w.partial(name)
			rt.Repeat(m.actions())
			if _, err := m.p.Complete(0, nil); err != nil {
				rt.Fatal(err)
			}
			got, err := os.ReadFile(w.upperPath(name))
			if err != nil || !bytes.Equal(got, m.want) {
				rt.Fatalf("finished file: %d bytes, want %d, differ at %d: %v", len(got), len(m.want), firstDiff(got, m.want), err)
			}
			if rec, err := recordOf(w, name); rec != nil || err != nil {
				rt.Fatalf("a finished file has the record %+v, %v", rec, err)
			}
		})
	})
}

func recordOf(w *world, name string) (*Record, error) {
	fd, err := w.upper.Root.FD()
	must(w.t, err)
	defer w.upper.Root.Done()
	return w.e.ReadRecord(fd, name)
}

func hasZeroRange(t *testing.T, dir string) bool {
	f, err := os.CreateTemp(dir, "zero")
	must(t, err)
	defer os.Remove(f.Name())
	defer f.Close()
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE, 0, 4096) == nil
}
