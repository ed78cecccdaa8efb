package main

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/plyfs/plyfs/cmd/plyfs/launch"
	"github.com/plyfs/plyfs/cmd/plyfs/mountopt"
	"github.com/plyfs/plyfs/layer/store"
)

// Faults of the command line are told from others, before anything is mounted.
func TestWrongUsage(t *testing.T) {
	t.Setenv(store.RootVariable, "") // put back at the end
	started := 0
	startDaemon = func() int { started++; return 0 }
	t.Cleanup(func() { startDaemon = launch.Start })
	for _, tt := range []struct{ line, want string }{
		{"plyfs", "no command"},
		{"plyfs frobnicate", `unknown command "frobnicate"`},
		{"plyfs mount", "usage: plyfs mount"},
		{"plyfs mount --lower /a /m /n", "usage: plyfs mount"},
		{"plyfs mount --lower", "needs an argument"},
		{"plyfs mount --colour /m", "unknown flag: --colour"},
		{"plyfs mount /m", "option lowerdir: missing"},
		{"plyfs mount --lower /a -o bogus=1 /m", "option bogus: unknown"},
		{"plyfs mount --lower /a --mode fast /m", "want cached, passthrough or shared"},
		{"plyfs mount --lower /a --threshold many /m", "is not a size"},
		{"plyfs -o lowerdir=/a,plugins=x /m", "option plugins: not supported"},
		{"plyfs -o lowerdir=/a", "usage: plyfs -o"},
		{"plyfs a b c -o lowerdir=/a", "usage: plyfs -o"},
		{"plyfs -Z", "unknown shorthand"},
		{"fuse-overlayfs mount", "option lowerdir: missing"},
		{"mount.fuse.plyfs none /m -o lowerdir=", "option lowerdir: missing"},
		{"plyfs umount", "usage: plyfs umount"},
		{"plyfs start", "usage: plyfs start"},
		{"plyfs start -a one two", "takes one container"},
		{"plyfs --root", "want the directory of the store"},
		{"plyfs --root= image ls", "want the directory of the store"},
		{"plyfs --root /nowhere", "no command"},
		{"plyfs --root /nowhere frobnicate", `unknown command "frobnicate"`},
		{"plyfs lab nonsense", `no exercise "nonsense"`},
		{"plyfs lab all", "all goes with --solve"},
		{"plyfs lab --solve", "which exercise"},
		{"plyfs lab layers again", "usage: plyfs lab"},
		{"plyfs help nonsense", `no command "nonsense"`},
		{"plyfs help image nonsense", `no command "image nonsense"`},
		{"plyfs run -v /a:/b:rw,ro app", `run: volume "/a:/b:rw,ro": both`}, // and not the value twice
	} {
		err := dispatch(strings.Fields(tt.line))
		var usage usageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want a usage error with %q", tt.line, err, tt.want)
		}
	}
	if started != 0 {
		t.Errorf("%d of them started a daemon", started)
	}
	if err := dispatch([]string{"plyfs", "mount", "--lower", "/a", "/m"}); err != nil || started != 1 {
		t.Errorf("a right line: %v, started %d daemons", err, started)
	}
}

// A --root before the command names the store, from the root on: a daemon leaves the directory it was started in.
func TestRootBeforeTheCommand(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv(store.RootVariable, "/other")
	for line, want := range map[string]string{
		"--root one image ls":        dir + "/one",
		"--root=/two image ls":       "/two",
		"--root a --root=b image ls": dir + "/b",
	} {
		rest, err := leadingRoot(strings.Fields(line))
		if err != nil || strings.Join(rest, " ") != "image ls" {
			t.Errorf("%s: %q, %v", line, rest, err)
		}
		if got := os.Getenv(store.RootVariable); got != want {
			t.Errorf("%s: %s", line, got)
		}
	}
}

// The daemon gets every path from the root on: it leaves the directory it was started in.
func TestPathsAreAll(t *testing.T) {
	o := mountopt.Options{Upper: "u", Work: "w", Log: "l", Root: "r", Lowers: []string{"a", "b"}, DataLowers: []string{"d"}}
	mnt := "m"
	for _, p := range paths(&o, &mnt) {
		*p = "/" + *p
	}
	want := mountopt.Options{Upper: "/u", Work: "/w", Log: "/l", Root: "/r", Lowers: []string{"/a", "/b"}, DataLowers: []string{"/d"}}
	if diff := cmp.Diff(want, o, cmpopts.IgnoreUnexported(o)); diff != "" || mnt != "/m" {
		t.Error(mnt, diff)
	}
}

func TestExplanation(t *testing.T) {
	e := explanation{Path: "/etc/a\nb", Type: "file", Sentence: "The upper wins.", Layers: []part{
		{Role: "upper", Dir: "/u", Name: "etc/a\nb", Part: "provides", Marks: []string{"metacopy"}},
		{Role: "lower", Index: 2, Dir: "/l", Name: "etc/a\nb", Part: "hidden", Note: "older"},
	}}
	var out bytes.Buffer
	printExplanation(&out, &e)
	want := `/etc/a\nb (file)
  upper    provides, metacopy  /u/etc/a\nb
  lower 2  hidden (older)      /l/etc/a\nb
  The upper wins.
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	if changeKind(&e) != "C" {
		t.Error("a file over another is a change")
	}
	e.Layers[1].Part = "whiteout"
	if changeKind(&e) != "A" {
		t.Error("a file over a deleted one is new")
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 1 << 30: "1.0 GiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}

func TestOptionsHelpNamesEverything(t *testing.T) {
	var out bytes.Buffer
	printOptions(&out)
	for _, docs := range [][]mountopt.Doc{mountopt.Docs(), mountopt.Silent(), mountopt.Refused()} {
		for _, d := range docs {
			if !strings.Contains(out.String(), d.Name) {
				t.Errorf("%s is not in the help", d.Name)
			}
		}
	}
}

// What a name or an image says stays in its line, and says nothing to the terminal.
func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"plain äöü":             "plain äöü",
		"two\nlines\r":          `two\nlines\r`,
		"\x1b]0;title\a\tx\x7f": `\x1b]0;title\a\tx\x7f`,
		"c1 \u009b31m":          `c1 \u009b31m`,
		"no text \xff\n\xfe":    `no text \xff\n\xfe`,
	} {
		if got := oneLine(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// What a layer or an image says of itself does not speak to the terminal.
func TestForeignText(t *testing.T) {
	const foreign = "x\ny\x1b[31m"
	var b strings.Builder
	printExplanation(&b, &explanation{Path: "/d", Type: "directory",
		Layers: []part{{Role: "lower", Index: 1, Part: "merged", Marks: []string{"redirect " + foreign}, Note: foreign}}})
	b.WriteString(platformText(&store.Image{OS: foreign, Arch: foreign, Variant: foreign}))
	if out := b.String(); strings.Contains(out, "\x1b") || strings.Contains(out, foreign[:2]) {
		t.Errorf("%q", out)
	}
}
