package integration

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// resident returns the resident memory of a process, in MiB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	do(t, err)
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			do(t, err)
			return kib >> 10
		}
	}
	t.Fatalf("no VmRSS in %s", b)
	return 0
}

// statAll lists a directory, asks for the attributes of everything in it, and returns how many
// names there are.
func statAll(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	do(t, err)
	defer unix.Close(fd)
	seen := 0
	var st unix.Stat_t
	for buf := make([]byte, 32<<10); ; {
		n, err := unix.Getdents(fd, buf)
		do(t, err)
		if n == 0 {
			return seen
		}
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		for _, name := range names {
			do(t, unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW))
		}
		seen += len(names)
	}
}

// TestRealMemory walks over 200,000 files: what the daemon remembers of them is bounded, and it
// gives the memory back once the kernel has forgotten them. Without the race detector only, which
// needs several times as much.
func TestRealMemory(t *testing.T) {
	harness.NeedRoot(t)
	harness.NeedNoRace(t)
	const (
		dirs, files = 100, 2000
		most        = 150 // MiB, with 200,000 files known
		few         = 20  // MiB more than before, with none known
	)
	root := harness.Filesystem(t, "tmpfs", 1<<30)
	l := &harness.Layers{Root: root, Lowers: []string{root + "/top", root + "/low"}, Upper: root + "/upper", Work: root + "/work", Mnt: root + "/mnt"}
	for _, dir := range append(l.Lowers, l.Upper, l.Work, l.Mnt, l.Lowers[0]+"/big", l.Lowers[1]+"/big") {
		do(t, os.Mkdir(dir, 0o755))
	}
	for i := range dirs * files {
		dir := fmt.Sprintf("%s/big/directory_%d", l.Lowers[i/files%2], i/files)
		if i%files == 0 {
			do(t, os.Mkdir(dir, 0o755))
		}
		do(t, unix.Mknod(fmt.Sprintf("%s/an_entry_of_it_%d", dir, i), unix.S_IFREG|0o644, 0))
	}
	m := l.Plyfs(t)
	start := resident(t, m.PID())
	full, nodes := 0, 0
	for try := 0; nodes < dirs*files; try++ { // others may make the kernel drop its caches meanwhile
		seen := statAll(t, m.Path("big"))
		for i := range dirs {
			seen += statAll(t, m.Path(fmt.Sprintf("big/directory_%d", i)))
		}
		if want := dirs + dirs*files; seen != want {
			t.Fatalf("saw %d names of %d", seen, want)
		}
		full = max(full, resident(t, m.PID()))
		if nodes = m.Stat(t).Union.Core.Nodes; nodes < dirs*files && try == 5 {
			t.Fatalf("the daemon knows %d nodes after a walk over %d files", nodes, dirs*files)
		}
	}
	if full > most {
		t.Errorf("%d MiB resident after a walk over %d files, want at most %d", full, dirs*files, most)
	}
	least := full
	waitFor(t, fmt.Sprintf("memory to be given back (%d MiB at the start, %d after the walk)", start, full), func() bool {
		harness.DropCaches(t) // the kernel spares what was used lately, once
		time.Sleep(time.Second)
		least = min(least, resident(t, m.PID()))
		return least <= start+few
	})
	t.Logf("resident: %d MiB at the start, %d with %d nodes, %d after they were forgotten", start, full, nodes, least)
	if known := m.Stat(t).Union.Core.Nodes; known > dirs*files/10 {
		t.Errorf("%d nodes are known after the kernel dropped its caches", known)
	}
}
