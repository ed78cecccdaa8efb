package graft

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// What a graft does, rule by rule (docs/grafts.md). The image of these tests:
const graftImage = `
	f data/old image
	f data/sub/deep image
	f etc/app.conf from the image
	f etc/hosts hosts
	l link data
	l outside ../../../../data
	l absolute /data/sub
	f plain a file`

// source makes a tree on the host, beside the layers.
func source(t *testing.T, l *harness.Layers, name, text string) string {
	t.Helper()
	dir := filepath.Join(l.Root, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	harness.Make(t, dir, text)
	return dir
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Error(err)
	}
}

func is(t *testing.T, what string, err error, want unix.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func names(t *testing.T, dir string) string {
	t.Helper()
	ents, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	var out []string
	for _, e := range ents {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

// untouched fails the test if f changed a tree.
func untouched(t *testing.T, f func(), dirs ...string) {
	t.Helper()
	var before [][]string
	for _, d := range dirs {
		before = append(before, harness.Dump(t, d, true))
	}
	f()
	for i, d := range dirs {
		if diff := cmp.Diff(before[i], harness.Dump(t, d, true)); diff != "" {
			t.Errorf("%s changed:\n%s", d, diff)
		}
	}
}

func TestGraftHidesWholeDirectoryAndGivesItBack(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	src := source(t, l, "src", "f new host")
	untouched(t, func() {
		m := l.Plyfs(t, "--bind", src+":/data")
		if got := names(t, m.Path("data")); got != "new" {
			t.Errorf("data has %q", got)
		}
		_, err := os.Stat(m.Path("data/old"))
		is(t, "a hidden name", err, unix.ENOENT)
		write(t, m.Path("data/old"), "on the host")
		if got := read(t, src+"/old"); got != "on the host" {
			t.Errorf("the host reads %q", got)
		}
		m.Close(t)
	}, l.Lowers[0], l.Upper)
	m := l.Plyfs(t)
	if got := read(t, m.Path("data/old")) + " " + names(t, m.Path("data")); got != "image old sub" {
		t.Errorf("after the unmount: %q", got)
	}
}

func TestGraftFileOverFileAndBesideOthers(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	src := source(t, l, "src", "f conf from the host")
	m := l.Plyfs(t, "--bind", src+"/conf:/etc/app.conf", "--bind", src+"/conf:/etc/new.conf")
	if got := read(t, m.Path("etc/app.conf")) + ", " + read(t, m.Path("etc/new.conf")); got != "from the host, from the host" {
		t.Errorf("%q", got)
	}
	if got := names(t, m.Path("etc")); got != "app.conf hosts new.conf" {
		t.Errorf("etc has %q", got)
	}
	write(t, m.Path("etc/hosts"), "changed")
	write(t, m.Path("etc/app.conf"), "changed in the view")
	if got := read(t, src+"/conf"); got != "changed in the view" {
		t.Errorf("the host reads %q", got)
	}
	if got := names(t, l.Upper+"/etc"); got != "hosts" {
		t.Errorf("the upper has %q", got)
	}
}

func TestGraftTargetThatDoesNotExist(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	src := source(t, l, "src", "f file host")
	m := l.Plyfs(t, "--bind", src+":/srv/a/b", "--bind", src+"/file:/srv/one")
	untouched(t, func() {
		if got := names(t, m.Path("srv")) + ", " + names(t, m.Path("srv/a")) + ", " + names(t, m.Path("srv/a/b")); got != "a one, b, file" {
			t.Errorf("%q", got)
		}
		write(t, m.Path("srv/a/b/new"), "x")
		is(t, "rmdir of a directory that holds a graft", os.Remove(m.Path("srv/a")), unix.ENOTEMPTY)
		_, err := os.Stat(m.Path("srv/none"))
		is(t, "a name that is not there", err, unix.ENOENT)
	}, l.Upper)
	// Who makes something there makes it in the writable layer.
	write(t, m.Path("srv/a/mine"), "x")
	if got := names(t, l.Upper+"/srv/a") + ", " + names(t, m.Path("srv/a")); got != "mine, b mine" {
		t.Errorf("%q", got)
	}
	m.Close(t)
	if got := names(t, l.Plyfs(t).Path("srv/a")); got != "mine" {
		t.Errorf("after the unmount: %q", got)
	}
}

func TestGraftReadOnly(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	src := source(t, l, "src", "f file host\nd dir")
	m := l.Plyfs(t, "--bind", src+":/data:ro")
	untouched(t, func() {
		file := m.Path("data/file")
		if got := read(t, file); got != "host" {
			t.Errorf("%q", got)
		}
		_, err := os.OpenFile(file, os.O_RDWR, 0)
		is(t, "open for writing", err, unix.EROFS)
		_, err = os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
		is(t, "open with O_TRUNC", err, unix.EROFS)
		for what, err := range map[string]error{
			"create":   os.WriteFile(m.Path("data/new"), nil, 0o644),
			"mkdir":    os.Mkdir(m.Path("data/new"), 0o755),
			"symlink":  os.Symlink("x", m.Path("data/new")),
			"link":     os.Link(file, m.Path("data/new")),
			"rename":   os.Rename(file, m.Path("data/new")),
			"unlink":   unix.Unlink(file),
			"rmdir":    unix.Rmdir(m.Path("data/dir")),
			"chmod":    os.Chmod(file, 0o600),
			"chown":    os.Chown(file, 0, 0),
			"truncate": os.Truncate(file, 0),
			"utimes":   unix.Utimes(file, make([]unix.Timeval, 2)),
			"setxattr": unix.Setxattr(file, "user.x", []byte("x"), 0),
		} {
			is(t, what, err, unix.EROFS)
		}
	}, src)
	write(t, m.Path("plain"), "the rest stays writable")
}

func TestGraftBothWaysAtOnce(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	src := source(t, l, "src", "f file 0")
	m := l.Plyfs(t, "--bind", src+":/data")
	host, view := src+"/file", m.Path("data/file")
	in, err := os.Open(view) // open all the time
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	sees := func(what, want string) {
		t.Helper()
		for _, path := range []string{host, view} {
			if got := read(t, path); got != want {
				t.Errorf("%s: %s has %q, want %q", what, path, got, want)
			}
			if st, err := os.Stat(path); err != nil || st.Size() != int64(len(want)) {
				t.Errorf("%s: %s: %v, %v, want size %d", what, path, st, err, len(want))
			}
		}
		buf := make([]byte, 100)
		n, _ := in.ReadAt(buf, 0)
		if got := string(buf[:n]); got != want {
			t.Errorf("%s: a descriptor open before has %q, want %q", what, got, want)
		}
	}
	add := func(path, text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			_, err = f.WriteString(text)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Error(err)
		}
	}
	sees("at first", "0")
	add(host, "1")
	sees("host appends", "01")
	add(view, "2")
	sees("view appends", "012")
	write(t, host, "abc") // same size, within the same clock tick
	sees("host overwrites", "abc")
	write(t, view, "xyz")
	sees("view overwrites", "xyz")
	if err := os.Truncate(host, 1); err != nil {
		t.Error(err)
	}
	sees("host truncates", "x")
	// An append through a descriptor that knew another size goes to the end all the same.
	f, err := os.OpenFile(view, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, text := range []string{"a", "b", "c"} {
		add(host, text)
		if _, err := f.WriteString(strings.ToUpper(text)); err != nil {
			t.Error(err)
		}
		sees("both append", "x"+"aAbBcC"[:2*i+2])
	}

	// Names.
	dir := func(what, want string) {
		t.Helper()
		for _, d := range []string{src, m.Path("data")} {
			if got := names(t, d); got != want {
				t.Errorf("%s: %s has %q, want %q", what, d, got, want)
			}
		}
	}
	_, err = os.Stat(m.Path("data/new"))
	is(t, "not there yet", err, unix.ENOENT)
	write(t, src+"/new", "n")
	if got := read(t, m.Path("data/new")); got != "n" {
		t.Errorf("%q", got)
	}
	dir("host creates", "file new")
	if err := os.Rename(m.Path("data/new"), m.Path("data/other")); err != nil {
		t.Error(err)
	}
	dir("view renames", "file other")
	if err := os.Remove(src + "/other"); err != nil {
		t.Error(err)
	}
	dir("host removes", "file")
	_, err = os.Stat(m.Path("data/other"))
	is(t, "removed on the host", err, unix.ENOENT)
	write(t, src+"/tmp", "replaced")
	if err := os.Rename(src+"/tmp", host); err != nil {
		t.Error(err)
	}
	if got := read(t, view); got != "replaced" {
		t.Errorf("after a replacement on the host the view reads %q", got)
	}
	if err := os.Chmod(host, 0o600); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(view); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
}

func TestGraftEdges(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	one := source(t, l, "one", "f file 1\nd dir\nd keep")
	two := source(t, l, "two", "f file 2\nd dir")
	m := l.Plyfs(t, "--bind", one+":/data", "--bind", two+":/srv/two", "--bind", two+"/file:/etc/app.conf", "--bind", one+":/data/keep/in")
	p := m.Path
	for _, pair := range [][2]string{
		{"plain", "data/x"}, {"data/file", "x"}, {"data/file", "srv/two/x"}, {"data/dir", "srv/two/y"},
		{"data/dir", "etc/y"}, {"data/file", "srv/x"}, {"etc/hosts", "srv/two/x"}, {"data/file", "data/keep/in/x"},
	} {
		is(t, "rename "+pair[0]+" "+pair[1], os.Rename(p(pair[0]), p(pair[1])), unix.EXDEV)
		if !strings.HasSuffix(pair[0], "dir") {
			is(t, "link "+pair[0]+" "+pair[1], os.Link(p(pair[0]), p(pair[1])), unix.EXDEV)
		}
	}
	for what, err := range map[string]error{
		"rmdir of a point":            unix.Rmdir(p("data")),
		"unlink of a point":           unix.Unlink(p("etc/app.conf")),
		"rename of a directory point": os.Rename(p("data"), p("other")),
		"rename of a file point":      os.Rename(p("etc/app.conf"), p("etc/other")),
		"rename over a file point":    os.Rename(p("etc/hosts"), p("etc/app.conf")),
		"exchange with a point":       unix.Renameat2(unix.AT_FDCWD, p("etc/hosts"), unix.AT_FDCWD, p("etc/app.conf"), unix.RENAME_EXCHANGE),
	} {
		is(t, what, err, unix.EBUSY)
	}
	for what, err := range map[string]error{
		"rmdir of what holds a point":       unix.Rmdir(p("srv")),
		"rmdir of what holds one in a bind": unix.Rmdir(p("data/keep")),
		"rename over what holds a point":    unix.Rename(p("data/dir"), p("data/keep")),
	} {
		is(t, what, err, unix.ENOTEMPTY)
	}
	is(t, "mkdir on a point", os.Mkdir(p("data"), 0o755), unix.EEXIST)
	is(t, "link to a point", os.Link(p("etc/hosts"), p("etc/app.conf")), unix.EEXIST)
	// A directory above a point moves, and the graft with it.
	if err := os.Rename(p("etc"), p("etc2")); err != nil {
		t.Error(err)
	}
	if got := read(t, p("etc2/app.conf")); got != "2" {
		t.Errorf("%q", got)
	}
	if err := os.Rename(p("data/keep"), p("data/kept")); err != nil {
		t.Error(err)
	}
	if got := read(t, p("data/kept/in/file")); got != "1" {
		t.Errorf("%q", got)
	}
}

func TestGraftNested(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}} {
		l := harness.NewLayers(t, graftImage)
		outer := source(t, l, "outer", "f name outer\nd in")
		inner := source(t, l, "inner", "f name inner")
		deep := source(t, l, "deep", "f name deep")
		flags := []string{outer + ":/data", inner + ":/data/in", deep + ":/data/in/a/b", inner + "/name:/data/one"}
		var args []string
		for _, i := range order {
			args = append(args, "--bind", flags[i])
		}
		m := l.Plyfs(t, args...)
		for path, want := range map[string]string{"data/name": "outer", "data/in/name": "inner", "data/in/a/b/name": "deep", "data/one": "inner"} {
			if got := read(t, m.Path(path)); got != want {
				t.Errorf("order %v: %s has %q, want %q", order, path, got, want)
			}
		}
		if got := names(t, m.Path("data")) + ", " + names(t, m.Path("data/in")); got != "in name one, a name" {
			t.Errorf("%q", got)
		}
		if got := names(t, outer) + ", " + names(t, inner); got != "in name, name" {
			t.Errorf("the sources have %q", got)
		}
		m.Close(t)
	}
}

func TestGraftOverRoot(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	src := source(t, l, "src", "f only this\nd data")
	inner := source(t, l, "inner", "f name inner")
	m := l.Plyfs(t, "--bind", src+":/", "--bind", inner+":/data")
	if got := names(t, m.Dir) + ", " + names(t, m.Path("data")); got != "data only, name" {
		t.Errorf("%q", got)
	}
	write(t, m.Path("new"), "x")
	if got := names(t, src) + ", " + names(t, l.Upper); got != "data new only, " {
		t.Errorf("%q", got)
	}
}

func TestGraftThroughLinks(t *testing.T) {
	l := harness.NewLayers(t, graftImage+`
		l loop loop
		l dangling /var/not/yet`)
	src := source(t, l, "src", "f file host")
	for target, at := range map[string]string{
		"/link/here":        "data/here",
		"/absolute/here":    "data/sub/here",
		"/outside/sub":      "data/sub", // ".." of the root is the root
		"/dangling/x":       "var/not/yet/x",
		"/data/../etc/./in": "etc/in",
	} {
		m := l.Plyfs(t, "--bind", src+":"+target)
		if got := read(t, m.Path(at+"/file")); got != "host" {
			t.Errorf("%s: %q", target, got)
		}
		m.Close(t)
	}
	out, err := harness.Run("mount", "--lower", l.Lowers[0], "--bind", src+":/loop/x", l.Mnt)
	if err == nil || !strings.Contains(out, "/loop/x") {
		t.Errorf("a loop of links: %v\n%s", err, out)
	}
}

func TestGraftEditorReplacesBoundFile(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	src := source(t, l, "src", "f conf v1")
	m := l.Plyfs(t, "--bind", src+"/conf:/etc/app.conf")
	// In the view: write a new file and rename it over, as many editors do.
	write(t, m.Path("etc/.app.conf.tmp"), "v2")
	is(t, "rename over a bound file", os.Rename(m.Path("etc/.app.conf.tmp"), m.Path("etc/app.conf")), unix.EBUSY)
	if got := read(t, m.Path("etc/app.conf")) + read(t, src+"/conf"); got != "v1v1" {
		t.Errorf("%q", got)
	}
	// On the host: the name gets another file, and the bind keeps the one it has.
	write(t, src+"/tmp", "v3")
	if err := os.Rename(src+"/tmp", src+"/conf"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, m.Path("etc/app.conf")); got != "v1" {
		t.Errorf("%q", got)
	}
}

func TestGraftRefusals(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	src := source(t, l, "src", "f file x\nd dir")
	for _, c := range []struct {
		code int
		word string
		args []string
	}{
		{2, "bind-propagation", []string{"--mount", "type=bind,source=" + src + ",target=/data,bind-propagation=rshared"}},
		{2, "want SOURCE:TARGET", []string{"--bind", src}},
		{2, "unknown option", []string{"--tmpfs", "/x:colour=blue"}},
		{1, "cannot open the source", []string{"--mount", "type=bind,source=" + src + "/none,target=/data"}},
		{1, "the target is not", []string{"--bind", src + ":/plain"}},
		{1, "the source is not", []string{"--bind", src + "/file:/data"}},
		{1, "two grafts for one target", []string{"--bind", src + ":/data", "--bind", src + "/dir:/link"}},
		{1, "not a directory", []string{"--bind", src + ":/plain/x"}},
		{1, "no such volume", []string{"--volume", "nosuch:/data"}},
	} {
		args := append(append([]string{"mount", "--lower", l.Lowers[0]}, c.args...), l.Mnt)
		out, err := harness.Run(args...)
		if harness.ExitCode(err) != c.code || !strings.Contains(out, c.word) || strings.Count(out, "\n") != 1 {
			t.Errorf("%v: exit code %d, want %d and %q:\n%s", c.args, harness.ExitCode(err), c.code, c.word, out)
			_ = unix.Unmount(l.Mnt, unix.MNT_DETACH)
		}
	}
	// -v makes a missing directory, --mount does not.
	m := l.Plyfs(t, "--volume", src+"/made/here:/data")
	write(t, m.Path("data/x"), "x")
	if got := read(t, src+"/made/here/x"); got != "x" {
		t.Errorf("%q", got)
	}
}

func TestGraftTmpfs(t *testing.T) {
	l := harness.NewLayers(t, graftImage)
	owner := "uid=5"
	if !harness.Owners() { // there is no such user, and no half of it
		out, err := harness.Run("mount", "--lower", l.Lowers[0], "--tmpfs", "/data:size=1m,"+owner, l.Mnt)
		if harness.ExitCode(err) != 1 || !strings.Contains(out, "owner 5:0 does not exist in this user namespace") || strings.Count(out, "\n") != 1 {
			t.Errorf("%v, %q", err, out)
		}
		owner = "uid=0"
	}
	m := l.Plyfs(t, "--tmpfs", "/data:size=1m,mode=700,"+owner, "--mount", "type=tmpfs,target=/run")
	st, err := os.Stat(m.Path("data"))
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st, err)
	}
	if st, err := os.Stat(m.Path("run")); err != nil || st.Mode()&os.ModeSticky == 0 || st.Mode().Perm() != 0o777 {
		t.Errorf("%v, %v", st, err)
	}
	write(t, m.Path("data/x"), "x")
	is(t, "more than fits", os.WriteFile(m.Path("data/large"), make([]byte, 2<<20), 0o644), unix.ENOSPC)
	var fs unix.Statfs_t
	if err := unix.Statfs(m.Path("data"), &fs); err != nil || uint64(fs.Bsize)*fs.Blocks != 1<<20 {
		t.Errorf("%+v, %v", fs, err)
	}
	m.Close(t)
	if got := names(t, l.Upper); got != "" {
		t.Errorf("the upper has %q", got)
	}
	m = l.Plyfs(t, "--tmpfs", "/data")
	if got := names(t, m.Path("data")); got != "" {
		t.Errorf("left from before: %q", got)
	}
}
