package mountopt

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []Pair
		err  string
	}{
		{in: ""},
		{in: ",,", want: nil},
		{in: "ro", want: []Pair{{Key: "ro"}}},
		{in: "a=b,ro,", want: []Pair{{"a", "b", true}, {Key: "ro"}}},
		{in: "a=", want: []Pair{{"a", "", true}}},
		{in: "a=b=c", want: []Pair{{"a", "b=c", true}}},
		{in: `a=x\,y,b`, want: []Pair{{"a", `x\,y`, true}, {Key: "b"}}},
		{in: `a=x\\,b`, want: []Pair{{"a", `x\\`, true}, {Key: "b"}}},
		{in: `a=x\`, want: []Pair{{"a", `x\`, true}}},
		{in: `context="u:o:c1,c2",ro`, want: []Pair{{"context", `"u:o:c1,c2"`, true}, {Key: "ro"}}},
		{in: `upperdir="a,b`, want: []Pair{{"upperdir", `"a`, true}, {Key: "b"}}},
		{in: `context="a,b`, err: "not closed"},
	} {
		got, err := Split(tt.in)
		if !matches(err, tt.err) {
			t.Errorf("%q: error %v, want %q", tt.in, err, tt.err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" && tt.err == "" {
			t.Errorf("%q (-want +got):\n%s", tt.in, diff)
		}
	}
}

func TestSplitDirs(t *testing.T) {
	for _, tt := range []struct {
		in   string
		dirs string // separated by |
		data string
		err  string
	}{
		{in: "/a", dirs: "/a"},
		{in: "/a:/b:/c", dirs: "/a|/b|/c"},
		{in: `/a\:b:/c`, dirs: "/a:b|/c"},
		{in: `/a\\:/c`, dirs: `/a\|/c`},
		{in: `/a\,b`, dirs: "/a,b"},
		{in: `/a\x`, dirs: "/ax"},
		{in: `/a\`, dirs: `/a\`},
		{in: "/a::/d1::/d2", dirs: "/a", data: "/d1|/d2"},
		{in: "/a:/b::/d", dirs: "/a|/b", data: "/d"},
		{in: `/a\::/b`, dirs: "/a:|/b"},
		{in: "/a::/d:/b", err: "data-only"},
		{in: ":/a", err: "empty"},
		{in: "/a:", err: "empty"},
		{in: "/a:::/b", err: "empty"},
		{in: "", err: "empty"},
	} {
		dirs, data, err := SplitDirs(tt.in)
		if !matches(err, tt.err) {
			t.Errorf("%q: error %v, want %q", tt.in, err, tt.err)
		}
		if tt.err == "" && (strings.Join(dirs, "|") != tt.dirs || strings.Join(data, "|") != tt.data) {
			t.Errorf("%q: %q and %q, want %q and %q", tt.in, dirs, data, tt.dirs, tt.data)
		}
	}
}

func matches(err error, want string) bool {
	if want == "" {
		return err == nil
	}
	return err != nil && strings.Contains(err.Error(), want)
}

// Whatever a path is, its escaped form comes through both splittings unharmed, with a
// neighbour and an option after it.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"/a", `/a\:b,c\`, `\`, "::", ",,", `\\,`, "a b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if path == "" {
			return
		}
		pairs, err := Split("lowerdir=" + Escape(path) + ":/b::" + Escape(path) + ",ro")
		if err != nil || len(pairs) != 2 || pairs[1].Key != "ro" {
			t.Fatalf("%q: %v, %v", path, pairs, err)
		}
		dirs, data, err := SplitDirs(pairs[0].Value)
		if err != nil || !slices.Equal(dirs, []string{path, "/b"}) || !slices.Equal(data, []string{path}) {
			t.Fatalf("%q: %q, %q, %v", path, dirs, data, err)
		}
		if Unescape(Escape(path)) != path {
			t.Fatalf("%q: escapes to %q", path, Escape(path))
		}
	})
}

// No text makes the parser panic, accept an empty path, or answer in more
// than one line.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`lowerdir=/a:/b::/c,upperdir=/u,workdir=/w,ro,nodev`,
		`lowerdir+=/a:b,datadir+=/d,metacopy=on,redirect_dir=follow,index=off,xino=auto`,
		`uidmapping=0:1000:1:1:100000:65536,squash_to_uid=7,timeout=1.5,fsync=0`,
		`context="a,b",threshold=1M,x-foo=bar,verity=on`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		var o Options
		err := o.Parse(list)
		if err == nil {
			err = o.Validate()
		}
		if err != nil {
			if utf8.ValidString(list) && !strings.Contains(list, "\n") && strings.Contains(err.Error(), "\n") {
				t.Fatalf("%q: error of several lines: %v", list, err)
			}
			return
		}
		if slices.Contains(o.Lowers, "") || slices.Contains(o.DataLowers, "") {
			t.Fatalf("%q: an empty path: %+v", list, o)
		}
		for _, r := range slices.Concat(o.UIDMap, o.GIDMap) {
			if r.Count == 0 || r.Layer+r.Count < r.Layer || r.View+r.Count < r.View {
				t.Fatalf("%q: range %+v", list, r)
			}
		}
	})
}
