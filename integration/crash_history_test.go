package integration

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// history is one file of a view, and everything that its only writer did to it. Each change is entered
// before it is made, so that after a crash the file must be one of what it may be: every block, by
// itself, as some change left it that is not older than the last one that had to last.
type history struct {
	i       int
	base    []byte // before the first change
	changes []func([]byte) []byte
	ends    []int64 // of the range that each changed
	now     []byte  // after the last

	began atomic.Int64 // changes that were begun
	kept  atomic.Int64 // changes that must have outlived a crash

	// Names and mode, each state entered before the change that leads to it.
	states    []string
	stateKept atomic.Int64

	rnd    *rand.Rand
	lasts  bool // what returned lasts: the kernel gathers no writes, and only the daemon is killed
	failed error
}

func newHistory(i int, base []byte, rnd *rand.Rand, lasts bool) *history {
	h := &history{i: i, rnd: rand.New(rand.NewPCG(rnd.Uint64(), 1)), lasts: lasts}
	h.restart(base, "f 644")
	return h
}

// restart begins anew from what the file is.
func (h *history) restart(base []byte, state string) {
	h.base, h.now, h.changes, h.ends, h.states = base, bytes.Clone(base), nil, nil, []string{state}
	h.began.Store(0)
	h.kept.Store(0)
	h.stateKept.Store(0)
}

// path of the file under one of its names, "f" or "g".
func (h *history) path(dir, name string) string { return filepath.Join(dir, name+itoa(h.i)) }

// parts splits a state, as in "f,g 644".
func (h *history) parts() (names []string, mode string) {
	n, mode, _ := strings.Cut(h.states[len(h.states)-1], " ")
	return strings.Split(n, ","), mode
}

// run makes random changes until one fails, or stop is closed. failed is set if nobody is dead then.
func (h *history) run(dir string, stop <-chan struct{}, dead *atomic.Bool) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		var err error
		switch k := h.rnd.IntN(20); {
		case k < 14:
			err = h.changeData(dir)
		case k < 16:
			err = h.sync(dir)
		default:
			err = h.changeState(dir)
		}
		if err != nil {
			if !dead.Load() {
				h.failed = err
			}
			return
		}
	}
}

// begin enters a change of the data before end.
func (h *history) begin(end int64, f func([]byte) []byte) {
	h.ends = append(h.ends, end)
	h.changes = append(h.changes, f)
	h.now = f(h.now)
	h.began.Add(1)
}

func (h *history) open(dir string, flags int) (*os.File, error) {
	names, _ := h.parts()
	return os.OpenFile(h.path(dir, names[h.rnd.IntN(len(names))]), flags|os.O_RDWR, 0)
}

func (h *history) sync(dir string) error {
	f, err := h.open(dir, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	n := h.began.Load()
	if err := f.Sync(); err != nil {
		return err
	}
	h.kept.Store(n)
	return nil
}

const (
	crashBlock = 4096
	crashMax   = 320 << 10
)

func (h *history) changeData(dir string) error {
	size := int64(len(h.now))
	off := h.rnd.Int64N(crashMax/2) + h.rnd.Int64N(2)*size/2
	n := []int64{1, 100, crashBlock, 3*crashBlock + 7, 40_000}[h.rnd.IntN(5)]
	kind := h.rnd.IntN(8)
	flags := 0
	switch kind {
	case 0: // append
		off = size
	case 1:
		off, n, flags = off&^(crashBlock-1), 2*crashBlock, unix.O_DIRECT
	case 2:
		flags = os.O_TRUNC
	}
	if off+n > crashMax {
		off = 0
	}
	b := freshBytes(h.rnd, n)
	write := func(old []byte) []byte { return overwrite(old, b, off) }
	if kind == 2 {
		h.begin(0, func([]byte) []byte { return nil })
	}
	f, err := h.open(dir, flags)
	if err != nil {
		return err
	}
	defer f.Close()
	switch {
	case kind == 3:
		h.begin(off, func(old []byte) []byte { return resize(old, off) })
		err = f.Truncate(off)
	case kind == 4:
		h.begin(off+n, func(old []byte) []byte {
			b := bytes.Clone(old)
			clear(b[min(off, int64(len(b))):min(off+n, int64(len(b)))])
			return b
		})
		err = uninterrupted(func() error {
			return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
		})
	case kind == 5 && off < size:
		b = b[:min(n, size-off)]
		h.begin(off+int64(len(b)), write)
		err = writeMapped(f, b, off, size)
	default:
		h.begin(off+n, write)
		_, err = f.WriteAt(b, off)
	}
	if err == nil && h.lasts {
		h.kept.Store(h.began.Load())
	}
	return err
}

// writeMapped fails, as write would, when there is nobody any more to give it the pages.
func writeMapped(f *os.File, b []byte, off, size int64) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			err = unix.EIO
		}
	}()
	m, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(m) //nolint:errcheck // nothing to be done
	copy(m[off:], b)
	return uninterrupted(func() error { return unix.Msync(m, unix.MS_SYNC) })
}

// uninterrupted calls f again when a signal of the Go runtime's own has interrupted the copy-up; os does that by itself.
func uninterrupted(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// changeState gives the file another name, a further one, one less, or another mode.
func (h *history) changeState(dir string) error {
	names, mode := h.parts()
	var next string
	var do func() error
	other := map[string]string{"f": "g", "g": "f"}[names[0]]
	switch k := h.rnd.IntN(3); {
	case k == 0:
		m := []uint32{0o600, 0o644, 0o755}[h.rnd.IntN(3)]
		next = fmt.Sprintf("%s %o", strings.Join(names, ","), m)
		do = func() error { return uninterrupted(func() error { return unix.Chmod(h.path(dir, names[0]), m) }) }
	case len(names) == 2:
		next = names[1] + " " + mode
		do = func() error { return os.Remove(h.path(dir, names[0])) }
	case k == 1:
		next = other + " " + mode
		do = func() error { return os.Rename(h.path(dir, names[0]), h.path(dir, other)) }
	default:
		next = "f,g " + mode
		do = func() error { return os.Link(h.path(dir, names[0]), h.path(dir, other)) }
	}
	h.states = append(h.states, next)
	if err := do(); err != nil {
		return err
	}
	h.stateKept.Store(int64(len(h.states) - 1))
	return nil
}

// moment is how far a history was when something happened.
type moment struct{ kept, began, stateKept int }

// look returns the moment, and what the file is in a view, in the form of states.
func (h *history) look(dir string) (content []byte, state string, err error) {
	var names []string
	var mode uint32
	var inodes []uint64
	for _, name := range []string{"f", "g"} {
		var st unix.Stat_t
		if err := unix.Lstat(h.path(dir, name), &st); err == unix.ENOENT {
			continue
		} else if err != nil {
			return nil, "", err
		}
		names, inodes, mode = append(names, name), append(inodes, st.Ino), st.Mode&0o7777
		if content, err = os.ReadFile(h.path(dir, name)); err != nil {
			return nil, "", err
		}
	}
	if len(inodes) == 2 && inodes[0] != inodes[1] {
		return nil, "", fmt.Errorf("its two names are two files")
	}
	return content, fmt.Sprintf("%s %o", strings.Join(names, ","), mode), nil
}

// check says what is wrong with the file in a view after a crash; "" for nothing.
func (h *history) check(dir string, at moment) string {
	got, state, err := h.look(dir)
	if err != nil {
		return err.Error()
	}
	possible := false
	for _, s := range h.states[at.stateKept:] {
		possible = possible || s == state
	}
	if !possible {
		return fmt.Sprintf("names and mode are %q, must be one of %q", state, h.states[at.stateKept:])
	}
	fine := make([]bool, (len(got)+crashBlock-1)/crashBlock)
	sizeFine, least, most := false, len(h.base), 0
	now := h.base
	for k := 0; ; k++ {
		if k >= at.kept {
			sizeFine = sizeFine || len(now) == len(got)
			least, most = min(least, len(now)), max(most, len(now))
			for i := range fine {
				fine[i] = fine[i] || sameBlock(got, now, i*crashBlock)
			}
		}
		if k == at.began {
			break
		}
		now = h.changes[k](now)
	}
	// Of a file that has become longer the disk may know as much as was written (a page, as ext4 does), or as a later
	// change within it needed (ext4_update_disksize_before_punch).
	for _, end := range h.ends[at.kept:at.began] {
		sizeFine = sizeFine || end == int64(len(got)) && len(got) <= most
	}
	if !sizeFine && (len(got)%crashBlock != 0 || len(got) < least || len(got) > most) {
		return fmt.Sprintf("%d bytes long, at no time since the last that had to last", len(got))
	}
	for i, ok := range fine {
		if !ok {
			return fmt.Sprintf("block %d of %d is none of what it was between changes %d and %d", i, len(fine), at.kept, at.began)
		}
	}
	return ""
}

// sameBlock compares the block at off; what b has not is zero.
func sameBlock(a, b []byte, off int) bool {
	for i := off; i < min(off+crashBlock, len(a)); i++ {
		want := byte(0)
		if i < len(b) {
			want = b[i]
		}
		if a[i] != want {
			return false
		}
	}
	return true
}

// freshBytes returns n bytes at a page's start, for O_DIRECT.
func freshBytes(rnd *rand.Rand, n int64) []byte {
	b := make([]byte, n+crashBlock)
	b = b[-int(uintptr(unsafe.Pointer(&b[0])))&(crashBlock-1):][:n]
	x := rnd.Uint64() | 1
	for i := range b {
		x = x*6364136223846793005 + 1442695040888963407
		b[i] = byte(x >> 56)
	}
	return b
}

func overwrite(old, b []byte, off int64) []byte {
	out := resize(old, max(int64(len(old)), off+int64(len(b))))
	copy(out[off:], b)
	return out
}

func resize(old []byte, size int64) []byte {
	out := make([]byte, size)
	copy(out, old)
	return out
}

// histories are files of all sizes with a writer each.
type histories []*history

// crashSizes are the sizes of the lower files f0, f1, …
var crashSizes = []int64{3000, 20 << 10, 70_001, 100 << 10, 300 << 10}

func historyTree() string {
	var b strings.Builder
	for i, size := range crashSizes {
		fmt.Fprintf(&b, "F f%d %d\n", i, size)
	}
	return b.String()
}

func newHistories(t *testing.T, lower string, rnd *rand.Rand, lasts bool) histories {
	t.Helper()
	var hs histories
	for i := range crashSizes {
		f, err := os.Open(filepath.Join(lower, "f"+itoa(i)))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		hs = append(hs, newHistory(i, b, rnd, lasts))
	}
	return hs
}

// before returns what must have lasted by now; after adds what was begun by then.
func (hs histories) before() []moment {
	at := make([]moment, len(hs))
	for i, h := range hs {
		at[i] = moment{kept: int(h.kept.Load()), stateKept: int(h.stateKept.Load())}
	}
	return at
}

func (hs histories) after(at []moment) {
	for i, h := range hs {
		at[i].began = int(h.began.Load())
	}
}
