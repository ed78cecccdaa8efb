package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// What plyfs explain says, of each kind of object.
func TestExplainSentences(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, sample...)
	harness.Make(t, l.Lowers[1], "F big 1M\nf small 1\nh another linked")
	m := l.Plyfs(t)
	patch(t, m.Path("big"), 5000, "x")
	patch(t, m.Path("small"), 0, "x")
	if err := os.WriteFile(m.Path("new"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(m.Path("a/top")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"":           "/ (directory)|The root: all layers merge here.",
		"both":       "/both (file)|hidden",
		"linked":     "/linked (file)",
		"another":    "/another (file)",
		"gone":       "/gone (no such name)|lower 1 has a whiteout",
		"a/top":      "/a/top (no such name)|upper has a whiteout",
		"opaque":     "/opaque (directory)|opaque",
		"merged":     "/merged (directory)|merged from lower 1 and lower 2",
		"link":       "/link (symlink)|It comes from lower 2",
		"new":        "/new (file)|it was made or replaced in this mount's writable layer",
		"big":        "/big (file)|blocks it does not have yet are read from the lower",
		"small":      "/small (file)|all of it is copied",
		"merged/no":  "/merged/no (no such name)|No layer has it.",
		"opaque/old": "/opaque/old (no such name)|what lower 2 has under that name is hidden with its directory",
	} {
		out := plyfs(t, "explain", m.Path(name))
		for _, w := range strings.Split(want, "|") {
			if !strings.Contains(out, w) {
				t.Errorf("explain %s: no %q in\n%s", name, w, out)
			}
		}
	}
	plyfs(t, "settle", m.Dir)
	for _, name := range []string{"big", "small"} {
		if out := plyfs(t, "explain", m.Path(name)); strings.Contains(out, "settled") || strings.Contains(out, "unfinished") {
			t.Errorf("after settling:\n%s", out)
		}
	}
}

// Every subcommand that prints speaks JSON, and ends with 0, 1 or 2.
func TestSubcommands(t *testing.T) {
	l := harness.NewLayers(t, sample...)
	m := l.Plyfs(t)
	patch(t, m.Path("both"), 0, "X")
	for _, args := range [][]string{
		{"stat", m.Dir}, {"explain", m.Path("both")}, {"explain", m.Path("gone")}, {"tree", m.Dir}, {"diff", m.Dir}, {"check", m.Dir},
		{"check", l.Lowers[0]}, {"settle", m.Dir}, {"explain", m.Path("both"), m.Path("gone")}, {"version"},
	} {
		if out := plyfs(t, args...); out == "" && args[0] != "settle" {
			t.Errorf("%q prints nothing", args)
		}
		out := plyfs(t, append([]string{args[0], "--json"}, args[1:]...)...)
		if !json.Valid([]byte(out)) {
			t.Errorf("%q --json prints %s", args, out)
		}
	}
	for _, tt := range []struct {
		code int
		want string
		args []string
	}{
		{1, "not in a plyfs mount", []string{"stat", l.Root}},
		{1, "not in a plyfs mount", []string{"explain", l.Lowers[0] + "/both"}},
		{1, "no such file", []string{"explain", l.Root + "/no"}},
		{1, "not in a plyfs mount", []string{"tree", l.Root}},
		{1, "not in a plyfs mount", []string{"diff", l.Root}},
		{1, "not in a plyfs mount", []string{"settle", l.Root}},
		{1, "not in a plyfs mount", []string{"watch", l.Root}},
		{1, "no such file", []string{"stat", l.Root + "/no"}},
		{2, "usage", []string{"stat"}},
		{2, "usage", []string{"explain"}},
		{2, "unknown flag", []string{"tree", "--colour", m.Dir}},
		{2, "unknown command", []string{"stats", m.Dir}},
		{2, "no command", []string{"help", "stats"}},
	} {
		out, err := harness.Run(tt.args...)
		if harness.ExitCode(err) != tt.code || !strings.Contains(out, tt.want) || strings.Count(out, "\n") != 1 {
			t.Errorf("%q: %v, %q, want %q", tt.args, err, out, tt.want)
		}
	}
	for _, args := range [][]string{{"help"}, {"--help"}, {"help", "options"}, {"help", "mount"}, {"mount", "--help"}, {"--version"}} {
		plyfs(t, args...)
	}
}

// Of several files those that can be explained are, in one JSON array, and each other one has its line.
func TestExplainSeveral(t *testing.T) {
	l := harness.NewLayers(t, sample...)
	m := l.Plyfs(t)
	args := []string{"explain", m.Path("both"), m.Path("no/such"), l.Root, m.Path("gone")}
	for _, flags := range [][]string{nil, {"--json"}} {
		cmd := exec.Command(harness.Binary(), append(args, flags...)...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if harness.ExitCode(err) != 1 {
			t.Errorf("%v: %v", flags, err)
		}
		for _, want := range []string{"no/such: no such file", l.Root + ": not in a plyfs mount", "2 of 4 failed"} {
			if !strings.Contains(stderr.String(), want) || strings.Count(stderr.String(), "\n") != 3 {
				t.Errorf("%v: no %q in three lines: %s", flags, want, stderr.String())
			}
		}
		if flags == nil {
			if !strings.Contains(string(out), "/both (file)") || !strings.Contains(string(out), "/gone (no such name)") {
				t.Errorf("%s", out)
			}
			continue
		}
		var found []struct{ Path string }
		if err := json.Unmarshal(out, &found); err != nil || len(found) != 2 || found[0].Path != "/both" || found[1].Path != "/gone" {
			t.Errorf("%v: %s", err, out)
		}
	}
}

// A full disk is ENOSPC, loses nothing, and the mount goes on when there is room again.
func TestFullDisk(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "F big 4M\nF small 64k\nf tiny 1")
	disk := filepath.Join(l.Root, "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("t", disk, "tmpfs", 0, "size=3m"); err != nil {
		t.Fatal(err)
	}
	l.Upper, l.Work = disk+"/upper", disk+"/work"
	for _, d := range []string{l.Upper, l.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := l.Plyfs(t, "--threshold", "off")
	if err := os.WriteFile(m.Path("kept"), []byte("kept"), 0o644); err != nil {
		t.Fatal(err)
	}
	// The copy does not fit, and the file stays as it was.
	f, err := os.OpenFile(m.Path("big"), os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("x"), 0)
		if err == nil {
			err = f.Sync()
		}
		f.Close()
	}
	if !isErrno(err, unix.ENOSPC) {
		t.Errorf("copying up too much: %v, want ENOSPC", err)
	}
	if b, err := os.ReadFile(m.Path("big")); err != nil || string(b) != string(harness.Bytes(4<<20)) {
		t.Errorf("the file that did not fit changed: %v", err)
	}
	// To the last byte.
	fill := m.Path("fill")
	if err := os.WriteFile(fill, make([]byte, 8<<20), 0o644); !isErrno(err, unix.ENOSPC) {
		t.Errorf("writing too much: %v, want ENOSPC", err)
	}
	if err := os.Chmod(m.Path("small"), 0o600); err != nil && !isErrno(err, unix.ENOSPC) {
		t.Errorf("chmod on a full disk: %v", err)
	}
	for name, want := range map[string]string{"kept": "kept", "tiny": "1", "small": string(harness.Bytes(64 << 10))} {
		if b, err := os.ReadFile(m.Path(name)); err != nil || string(b) != want {
			t.Errorf("%s on a full disk: %v", name, err)
		}
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	// The kernel tells the daemon in its own time that nobody has the file open any more.
	waitFor(t, "the room of a removed file", func() bool {
		var st unix.Statfs_t
		return unix.Statfs(disk, &st) == nil && st.Bavail*uint64(st.Bsize) > 2<<20
	})
	patch(t, m.Path("small"), 0, "X")
	patch(t, m.Path("tiny"), 0, "2")
	want := harness.Dump(t, m.Dir, true)
	if names := names(t, l.Work+"/work"); strings.Contains(names, "#") {
		t.Errorf("left in the staging directory: %s", names)
	}
	m.Close(t)
	if got := harness.Dump(t, l.Kernel(t).Dir, true); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("plyfs had\n%s\nthe kernel has\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
}
