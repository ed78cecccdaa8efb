package copyup

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/integration/harness"
)

const eventSize = 300 << 10

// eventCase does one thing that copies a file up.
type eventCase struct {
	cause cow.Cause
	file  string // which is copied up
	do    func(t *testing.T, path string)

	method        cow.Method
	asked, copied int64
	most          int64 // that it may occupy in the upper
}

func writeThere(n, off int) func(t *testing.T, path string) {
	return func(t *testing.T, path string) { writeAt(t, path, nil, strings.Repeat("x", n), off) }
}

// copyRangeTo copies n bytes of the file "unrelated" to the beginning, as cp and others do.
func copyRangeTo(n int) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		in, err := os.Open(filepath.Join(filepath.Dir(path), "unrelated"))
		must(t, err)
		defer in.Close()
		out, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		defer out.Close()
		if done, err := unix.CopyFileRange(int(in.Fd()), nil, int(out.Fd()), nil, n, 0); done != n {
			t.Fatalf("copy_file_range: %d, %v", done, err)
		}
	}
}

var eventCases = []eventCase{
	{cow.CauseWrite, "one-byte", writeThere(1, 70_000), cow.MethodRange, 1, 4096, 8 << 10},
	{cow.CauseWrite, "whole-block", writeThere(4096, 8192), cow.MethodRange, 4096, 0, 8 << 10},
	{cow.CauseWrite, "small", writeThere(5, 10), cow.MethodLoop, 5, 3000, 8 << 10},
	{cow.CauseTruncate, "cut", func(t *testing.T, path string) { must(t, os.Truncate(path, 100_000)) },
		cow.MethodCopyRange, eventSize - 100_000, 100_000, 128 << 10},
	{cow.CauseTruncate, "emptied", func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) },
		cow.MethodNone, eventSize, 0, 4 << 10},
	{cow.CauseTruncate, "longer", func(t *testing.T, path string) { must(t, os.Truncate(path, eventSize+1000)) },
		cow.MethodRange, 1000, 0, 8 << 10},
	{cow.CauseFallocate, "punched", func(t *testing.T, path string) {
		fallocate(t, path, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 8192)
	}, cow.MethodRange, 8192, 0, 16 << 10},
	{cow.CauseFallocate, "allocated", func(t *testing.T, path string) { fallocate(t, path, 0, 5000, 10_000) },
		cow.MethodRange, 10_000, 12 << 10, 20 << 10},
	{cow.CauseTruncate, "cut-within", func(t *testing.T, path string) { must(t, os.Truncate(path, eventSize-1000)) },
		cow.MethodRange, 1000, 3096, 12 << 10},
	{cow.CauseWrite, "copied-to", copyRangeTo(3000), cow.MethodRange, 3000, 4096, 12 << 10},
	{cow.CauseChmod, "mode", func(t *testing.T, path string) { must(t, os.Chmod(path, 0o600)) }, cow.MethodRange, 0, 0, 8 << 10},
	{cow.CauseChown, "owner", func(t *testing.T, path string) { must(t, os.Chown(path, 1, 2)) }, cow.MethodRange, 0, 0, 8 << 10},
	{cow.CauseUtimens, "times", func(t *testing.T, path string) { must(t, os.Chtimes(path, time.Unix(1, 0), time.Unix(2, 0))) },
		cow.MethodRange, 0, 0, 8 << 10},
	{cow.CauseSetxattr, "attribute", func(t *testing.T, path string) { must(t, unix.Setxattr(path, "user.a", nil, 0)) },
		cow.MethodRange, 0, 0, 8 << 10},
	{cow.CauseSetflags, "flags", func(t *testing.T, path string) { chattr(t, "+d", path) }, cow.MethodCopyRange, 0, eventSize, 512 << 10},
	{cow.CauseLink, "linked", func(t *testing.T, path string) { must(t, os.Link(path, path+"-too")) }, cow.MethodRange, 0, 0, 8 << 10},
	{cow.CauseUnlink, "several", func(t *testing.T, path string) { must(t, os.Remove(path)) }, cow.MethodRange, 0, 0, 8 << 10},
	{cow.CauseRename, "renamed", func(t *testing.T, path string) { must(t, os.Rename(path, path+"-now")) }, cow.MethodRange, 0, 0, 8 << 10},
	{cow.CauseParent, "dir", func(t *testing.T, path string) { must(t, os.WriteFile(path+"/new", nil, 0o600)) },
		cow.MethodNone, 0, 0, 4 << 10},
	{cow.CauseChmod, "dir-mode", func(t *testing.T, path string) { must(t, os.Chmod(path, 0o700)) }, cow.MethodNone, 0, 0, 4 << 10},
	{cow.CauseRename, "dir-name", func(t *testing.T, path string) { must(t, os.Rename(path, path+"-now")) }, cow.MethodNone, 0, 0, 4 << 10},
	{cow.CauseRename, "symlink", func(t *testing.T, path string) { must(t, os.Rename(path, path+"-now")) }, cow.MethodNone, 0, 0, 4 << 10},
}

func eventTree() string {
	var b strings.Builder
	for _, c := range eventCases {
		switch c.file {
		case "small":
			b.WriteString("F small 3000\n")
		case "dir", "dir-mode", "dir-name":
			b.WriteString("d " + c.file + "\n")
		case "symlink":
			b.WriteString("l symlink nowhere\n")
		default:
			b.WriteString("F " + c.file + " 300k\n")
		}
	}
	return b.String() + "h several2 several\n"
}

// TestEvents: one record for each copy-up, with everything there is to know, and plyfs stat sums them.
func TestEvents(t *testing.T) {
	dir := harness.Filesystem(t, "ext4", 512<<20)
	l := harness.NewLayersOn(t, dir, "F unrelated 3000")
	low := filepath.Join(dir, "low")
	must(t, os.Mkdir(low, 0o755))
	harness.Make(t, low, eventTree())
	l.Lowers = append(l.Lowers, low)
	m := l.Plyfs(t, manual...)
	w := events(t, m)
	name, err := os.ReadFile("/proc/self/comm")
	must(t, err)
	runtime.LockOSThread() // it is a thread that asks
	defer runtime.UnlockOSThread()
	var all []cow.Event
	for _, c := range eventCases {
		// What it is worth knowing about beforehand is in the kernel's cache.
		size := int64(eventSize)
		if st, err := os.Lstat(m.Path(c.file)); err != nil {
			t.Fatal(err)
		} else {
			size = st.Size()
		}
		began := time.Now()
		c.do(t, m.Path(c.file))
		evs := w.next(t)
		all = append(all, evs...)
		if len(evs) != 1 {
			t.Errorf("%s: events: %+v", c.file, evs)
			continue
		}
		ev := evs[0]
		want := cow.Event{Path: "/" + c.file, Layer: low, LayerIndex: 2, Method: c.method, Cause: c.cause, PID: uint32(unix.Gettid()),
			Process: strings.TrimSpace(string(name)), BytesAsked: c.asked, BytesCopied: c.copied, FileBytes: size,
			// Checked below.
			Seq: uint64(len(all)), Time: ev.Time, UpperBytes: ev.UpperBytes, Copy: ev.Copy}
		if c.cause == cow.CauseSetflags { // chattr's own process, which is gone
			want.PID, want.Process = ev.PID, ev.Process
		}
		if ev != want {
			t.Errorf("%s: event\n%+v, want\n%+v", c.file, ev, want)
		}
		if ev.Time.Before(began) || ev.Time.After(time.Now()) || ev.Copy <= 0 || ev.PID == 0 {
			t.Errorf("%s: at %v, took %v, by %d", c.file, ev.Time, ev.Copy, ev.PID)
		}
		if ev.UpperBytes < c.copied || ev.UpperBytes > c.most {
			t.Errorf("%s: %d bytes in the upper", c.file, ev.UpperBytes)
		}
	}
	sumsMatch(t, m, all)
}

// sumsMatch compares plyfs stat with the events.
func sumsMatch(t *testing.T, m *harness.Mount, evs []cow.Event) {
	t.Helper()
	add := func(s cow.Sum, ev *cow.Event) cow.Sum {
		s.Count++
		if ev.Err != "" {
			s.Failed++
		}
		s.BytesAsked += ev.BytesAsked
		s.BytesCopied += ev.BytesCopied
		s.UpperBytes += ev.UpperBytes
		s.Wait += ev.Wait
		s.Copy += ev.Copy
		s.Longest = max(s.Longest, ev.Copy)
		return s
	}
	var total cow.Sum
	byMethod, byCause := map[cow.Method]cow.Sum{}, map[cow.Cause]cow.Sum{}
	for i := range evs {
		ev := &evs[i]
		total = add(total, ev)
		byMethod[ev.Method] = add(byMethod[ev.Method], ev)
		byCause[ev.Cause] = add(byCause[ev.Cause], ev)
	}
	out, err := harness.Run("stat", "--json", m.Dir)
	must(t, err)
	var st struct {
		Union struct {
			Core struct {
				CopyUps cow.Sums `json:"copyups"`
			} `json:"core"`
		} `json:"union"`
	}
	must(t, json.Unmarshal([]byte(out), &st))
	got := st.Union.Core.CopyUps
	if got.Total != total {
		t.Errorf("plyfs stat: %+v, the events: %+v", got.Total, total)
	}
	for k, want := range byMethod {
		if got.ByMethod[k] != want {
			t.Errorf("plyfs stat: %s: %+v, the events: %+v", k, got.ByMethod[k], want)
		}
	}
	for k, want := range byCause {
		if got.ByCause[k] != want {
			t.Errorf("plyfs stat: %s: %+v, the events: %+v", k, got.ByCause[k], want)
		}
	}
	text, err := harness.Run("stat", m.Dir)
	must(t, err)
	if !slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool {
		return slices.Equal(strings.Fields(line), []string{"copied", "up", itoa(int(total.Count))})
	}) {
		t.Errorf("plyfs stat prints:\n%s", text)
	}
}

// TestEventOfOpen: in passthrough mode the kernel writes by itself, so that opening is the cause.
func TestEventOfOpen(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "F big 300k\nF in-use 300k")
	m := l.Plyfs(t, append([]string{"--mode", "passthrough"}, manual...)...)
	w := events(t, m)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, name := range []string{"big", "in-use"} {
		if name == "in-use" { // by somebody who reads the lower file
			f, err := os.Open(m.Path(name))
			must(t, err)
			defer f.Close()
		}
		f, err := os.OpenFile(m.Path(name), os.O_RDWR, 0)
		must(t, err)
		must(t, f.Close())
		evs := w.only(t, "/"+name)
		if len(evs) != 1 || evs[0].Cause != cow.CauseOpen || evs[0].BytesCopied != eventSize || evs[0].Method == cow.MethodRange ||
			evs[0].PID != uint32(unix.Gettid()) {
			t.Errorf("events: %+v", evs)
		}
	}
}
