package integration

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// step is one change of a tree, on objects that no other step touches. Killed in the middle it leaves
// them as they were or as they should become.
type step struct {
	objects []string
	do      func(dir string) error
}

// crashTree is what the steps work on, with its layers.
func crashTree() []string {
	var bottom strings.Builder
	for i := range crashRepeats {
		n := itoa(i)
		for _, line := range []string{
			"f small" + n + " old", "F big" + n + " 700k", "F middle" + n + " 100k", "f trunc" + n + " old contents",
			"f from" + n + " moved", "f over" + n + " over", "f under" + n + " under", "f left" + n + " left", "F right" + n + " 300k",
			"f gone" + n + " gone", "d empty" + n, "f mode" + n + " mode", "F bigmode" + n + " 300k", "f linked" + n + " linked",
			"h linkedtoo" + n + " linked" + n, "f times" + n + " times", "f replaced" + n + " old", "l sym" + n + " target",
			"f dir" + n + "/below 1", "f dir" + n + "/sub/deep 2", "f newlink" + n + " x", "f attr" + n + " x",
		} {
			bottom.WriteString(line + "\n")
		}
		bottom.WriteString("f hidden" + n + "/x 1\n")
	}
	return []string{crashTop(true), bottom.String()}
}

func crashTop(whiteouts bool) string {
	var top strings.Builder
	for i := range crashRepeats {
		fmt.Fprintf(&top, "f dir%d/above 3\n", i)
		if whiteouts {
			fmt.Fprintf(&top, "w hidden%d\n", i)
		}
	}
	return top.String()
}

const crashRepeats = 3

func crashSteps() []step {
	var steps []step
	add := func(do func(dir string) error, objects ...string) {
		steps = append(steps, step{objects, do})
	}
	in := filepath.Join
	write := func(path string, off int64, text string) error {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte(text), off); err != nil {
			return err
		}
		return f.Sync()
	}
	for i := range crashRepeats {
		n := itoa(i)
		add(func(d string) error { return write(in(d, "small"+n), 0, "new") }, "small"+n)
		add(func(d string) error { return write(in(d, "big"+n), 300001, "new") }, "big"+n)
		add(func(d string) error { return write(in(d, "middle"+n), 50001, "new") }, "middle"+n)
		add(func(d string) error { return os.Truncate(in(d, "trunc"+n), 3) }, "trunc"+n)
		add(func(d string) error { return os.Rename(in(d, "from"+n), in(d, "to"+n)) }, "from"+n, "to"+n)
		add(func(d string) error { return os.Rename(in(d, "over"+n), in(d, "under"+n)) }, "over"+n, "under"+n)
		add(func(d string) error {
			return unix.Renameat2(unix.AT_FDCWD, in(d, "left"+n), unix.AT_FDCWD, in(d, "right"+n), unix.RENAME_EXCHANGE)
		}, "left"+n, "right"+n)
		add(func(d string) error { return os.Remove(in(d, "gone"+n)) }, "gone"+n)
		add(func(d string) error { return os.Remove(in(d, "empty"+n)) }, "empty"+n)
		add(func(d string) error { return os.Chmod(in(d, "mode"+n), 0o4711) }, "mode"+n)
		add(func(d string) error { return os.Chmod(in(d, "bigmode"+n), 0o600) }, "bigmode"+n)
		add(func(d string) error { return write(in(d, "linked"+n), 0, "LINKED") }, "linked"+n, "linkedtoo"+n)
		add(func(d string) error { return os.Link(in(d, "newlink"+n), in(d, "newlinktoo"+n)) }, "newlink"+n, "newlinktoo"+n)
		add(func(d string) error { return os.Chtimes(in(d, "times"+n), time.Unix(5, 6), time.Unix(7, 8)) }, "times"+n)
		add(func(d string) error { return unix.Setxattr(in(d, "attr"+n), "user.a", []byte("1"), 0) }, "attr"+n)
		add(func(d string) error { return os.Mkdir(in(d, "hidden"+n), 0o700) }, "hidden"+n)
		add(func(d string) error { return os.Mkdir(in(d, "new"+n), 0o755) }, "new"+n)
		add(func(d string) error { return os.Symlink("somewhere", in(d, "newsym"+n)) }, "newsym"+n)
		add(func(d string) error { return os.Rename(in(d, "sym"+n), in(d, "symto"+n)) }, "sym"+n, "symto"+n)
		add(func(d string) error { return unix.Mkfifo(in(d, "fifo"+n), 0o600) }, "fifo"+n)
		add(func(d string) error { return os.Rename(in(d, "dir"+n), in(d, "dirto"+n)) }, "dir"+n, "dirto"+n)
		add(func(d string) error {
			tmp := in(d, "replaced"+n+".tmp")
			if err := os.WriteFile(tmp, []byte("replaced"), 0o640); err != nil {
				return err
			}
			return os.Rename(tmp, in(d, "replaced"+n))
		}, "replaced"+n) // the temporary file is the caller's own business
	}
	return steps
}

// objectsState is what the named objects are: all below them, with contents.
func objectsState(t *testing.T, dir string, names []string) string {
	t.Helper()
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "%s:", name)
		err := filepath.WalkDir(filepath.Join(dir, name), func(path string, _ os.DirEntry, err error) error {
			if os.IsNotExist(err) {
				b.WriteString(" none")
				return nil
			}
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				return err
			}
			fmt.Fprintf(&b, " %s %o %d", strings.TrimPrefix(path, dir), st.Mode, st.Uid)
			switch st.Mode & unix.S_IFMT {
			case unix.S_IFREG:
				c, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				fmt.Fprintf(&b, " %d links %d %x", st.Nlink, len(c), sha256.Sum256(c))
				if st.Mtim == (unix.Timespec{Sec: 7, Nsec: 8}) { // as the step sets it
					b.WriteString(" at seven")
				}
				if n, err := unix.Lgetxattr(path, "user.a", nil); err == nil {
					fmt.Fprint(&b, " attribute of ", n)
				}
			case unix.S_IFLNK:
				to, err := os.Readlink(path)
				if err != nil {
					return err
				}
				b.WriteString(" " + to)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// crashRounds is how many times a test kills a daemon; PLYFS_CRASH_ROUNDS for more.
func crashRounds(t *testing.T, few int) int {
	t.Helper()
	if n, err := strconv.Atoi(os.Getenv("PLYFS_CRASH_ROUNDS")); err == nil {
		return n
	}
	if testing.Short() {
		return few / 4
	}
	return few
}

func crashRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("PLYFS_CRASH_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("PLYFS_CRASH_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// reset empties the writable side of a stack.
func reset(t *testing.T, l *harness.Layers) {
	t.Helper()
	for _, dir := range []string{l.Upper, l.Work} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// killed checks what a kill left: the upper mounts here, with nothing stale beside it, and in the kernel if
// there is no mark that says otherwise; then settled in the kernel in any case. check looks at a view.
func killed(t *testing.T, l *harness.Layers, check func(dir, who string)) {
	t.Helper()
	if _, err := os.Stat(l.Work + "/work/incompat"); os.IsNotExist(err) {
		k := l.Kernel(t, "index=on")
		check(k.Dir, "the kernel")
		k.Close(t)
	}
	left, err := filepath.Glob(l.Work + "/work/#*")
	if err != nil {
		t.Fatal(err)
	}
	m := l.Plyfs(t)
	for _, path := range left { // not what the new daemon makes there meanwhile
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("stale: %s", path)
		}
	}
	check(m.Dir, "plyfs")
	want := harness.Dump(t, m.Dir, true)
	m.Close(t)
	k := l.Kernel(t, "index=on")
	check(k.Dir, "the kernel, settled")
	if diff := cmp.Diff(want, harness.Dump(t, k.Dir, true)); diff != "" {
		t.Errorf("plyfs (-), the kernel (+):\n%s", diff)
	}
	k.Close(t)
}

// Killed at any moment of a series of changes, each change was made or was not, and those that had
// returned to their callers were made.
func TestKilledAtAnyMoment(t *testing.T) {
	harness.NeedRoot(t)
	rnd := crashRand(t)
	steps := crashSteps()
	// What should be, from a plain directory.
	plain := harness.Dir(t)
	tree := crashTree()
	harness.Make(t, plain, tree[1])
	for i := range crashRepeats { // a whiteout is no deletion on a plain directory
		if err := os.RemoveAll(plain + "/hidden" + itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	harness.Make(t, plain, crashTop(false))
	before, after := make([]string, len(steps)), make([]string, len(steps))
	for i, s := range steps {
		before[i] = objectsState(t, plain, s.objects)
	}
	for i, s := range steps {
		if err := s.do(plain); err != nil {
			t.Fatal(s.objects, err)
		}
		after[i] = objectsState(t, plain, s.objects)
	}
	l := harness.NewLayers(t, tree...)
	took := time.Duration(0)
	for round := range crashRounds(t, 12) {
		reset(t, l)
		m := l.Plyfs(t)
		order := rnd.Perm(len(steps))
		delay := time.Duration(rnd.Int64N(int64(took*5/4 + 1)))
		if round == 0 {
			delay = time.Minute // a whole run, to see how long it takes
		}
		dead := make(chan struct{})
		timer := time.AfterFunc(delay, func() {
			_ = unix.Kill(m.PID(), unix.SIGKILL)
			close(dead)
		})
		start := time.Now()
		done := make([]bool, len(steps))
		finished := 0
		for _, i := range order {
			if err := steps[i].do(m.Dir); err != nil {
				select {
				case <-dead:
				case <-time.After(time.Second):
					t.Errorf("%s: %v", steps[i].objects, err)
				}
				break
			}
			done[i] = true
			finished++
		}
		if round == 0 {
			took = time.Since(start)
		}
		if timer.Stop() {
			close(dead)
		}
		<-dead
		m.Kill(t)
		killed(t, l, func(dir, who string) {
			for i, s := range steps {
				switch got := objectsState(t, dir, s.objects); {
				case got == after[i]:
				case got == before[i] && !done[i]:
				default:
					t.Errorf("round %d, killed after %d steps, %s: done %v, in %s:\n%swas\n%sshould be\n%s", round, finished, s.objects, done[i], who, got, before[i], after[i])
				}
			}
		})
		if t.Failed() {
			return
		}
	}
}

// Killed while it completes partly copied files: asked to, and after the unmount.
func TestKilledWhileSettling(t *testing.T) {
	harness.NeedRoot(t)
	rnd := crashRand(t)
	const files = 12
	var tree strings.Builder
	for i := range files {
		fmt.Fprintf(&tree, "F f%d %dk\n", i, 300+100*i)
	}
	l := harness.NewLayers(t, tree.String())
	want := map[string]string{}
	took := map[bool]time.Duration{}
	for round := range crashRounds(t, 10) {
		reset(t, l)
		m := l.Plyfs(t)
		for i := range files {
			name := "f" + itoa(i)
			off := rnd.Int64N(300 << 10)
			patch(t, m.Path(name), off, "changed")
			c := harness.Bytes(int64(300+100*i) << 10)
			copy(c[off:], "changed")
			want[name] = string(c)
			if i == 3 {
				if err := os.Truncate(m.Path(name), 123456); err != nil {
					t.Fatal(err)
				}
				want[name] = string(c[:123456])
			}
		}
		if err := run("sync", "-f", m.Dir); err != nil {
			t.Fatal(err)
		}
		unmount := round%2 == 1
		args := []string{harness.Binary(), "settle", m.Dir}
		if unmount {
			args = []string{"umount", m.Dir} // the daemon settles after it
		}
		delay := time.Duration(rnd.Int64N(int64(took[unmount]*5/4 + 1)))
		if round < 2 {
			delay = time.Minute
		}
		pid := m.PID()
		start := time.Now()
		timer := time.AfterFunc(delay, func() { _ = unix.Kill(pid, unix.SIGKILL) })
		_ = run(args[0], args[1:]...)
		if unmount {
			waitFor(t, "the daemon's end", func() bool { return !harness.Alive(pid) })
		}
		if round < 2 {
			took[unmount] = time.Since(start)
		}
		timer.Stop()
		m.Kill(t)
		killed(t, l, func(dir, who string) {
			for name, text := range want {
				if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != text {
					t.Errorf("round %d, killed after %v (unmount: %v): %s in %s: wrong contents, %v", round, delay, unmount, name, who, err)
				}
			}
		})
		if t.Failed() {
			return
		}
	}
}
