package graft

import (
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/layer/store/naming"
)

func TestParseVolume(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Spec
	}{
		{"/srv/data:/data", Spec{Kind: Bind, Source: "/srv/data", Target: "/data", Create: true}},
		{"./data:/data:ro", Spec{Kind: Bind, Source: "./data", Target: "/data", Create: true, ReadOnly: true}},
		{".:/src", Spec{Kind: Bind, Source: ".", Target: "/src", Create: true}},
		{"notes:/var/lib/notes", Spec{Kind: Volume, Source: "notes", Target: "/var/lib/notes"}},
		{"notes:/n:ro,nocopy", Spec{Kind: Volume, Source: "notes", Target: "/n", ReadOnly: true, NoCopy: true}},
		{"/data", Spec{Kind: Volume, Target: "/data"}},
		{"/data:ro", Spec{Kind: Volume, Target: "/data", ReadOnly: true}},
		{"/a:/b/../c//d/", Spec{Kind: Bind, Source: "/a", Target: "/c/d", Create: true}},
		{"/a:/b:z", Spec{Kind: Bind, Source: "/a", Target: "/b", Create: true, Idle: []string{"z"}}},
		{"/a:/..", Spec{Kind: Bind, Source: "/a", Target: "/", Create: true}},
	} {
		got, err := ParseVolume(c.in)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
		} else if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q: want (-), got (+):\n%s", c.in, diff)
		}
	}
	for in, word := range map[string]string{
		"":                  "empty",
		":/a":               "source is empty",
		"/a:":               "target is empty",
		"/a:b":              "does not begin with a slash",
		"data:":             "target is empty",
		"x:/a":              "no name for a volume",
		"-x:/a":             "has a slash: ./-x)",
		"/a:/b:ro,rw":       "both ro and rw",
		"/a:/b:ro:x":        "too many colons",
		"/a:/b:":            "no options after it",
		"/a:/b:wr":          "unknown option",
		"/a:/b:nocopy":      "nothing is ever copied into a bind",
		"/a:/b:rshared":     "bind-propagation",
		"notes:data":        "does not begin with a slash",
		"notes:/a:ro,,":     "unknown option",
		"a\x00b/c:/x":       "NUL",
		"relative":          "does not begin with a slash",
		"name with blank:/": "no name for a volume",

		strings.Repeat("v", naming.MaxLength+1) + ":/a": "no name for a volume",
	} {
		if got, err := ParseVolume(in); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%q: %+v, %v; want an error with %q", in, got, err, word)
		}
	}
}

func TestParseMount(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Spec
	}{
		{"type=bind,source=/a,target=/b", Spec{Kind: Bind, Source: "/a", Target: "/b"}},
		{"type=bind,src=/a:b,dst=/b,readonly", Spec{Kind: Bind, Source: "/a:b", Target: "/b", ReadOnly: true}},
		{"target=/b", Spec{Kind: Volume, Target: "/b"}},
		{"type=volume,source=notes,destination=/b,volume-nocopy=true,ro=false", Spec{Kind: Volume, Source: "notes", Target: "/b", NoCopy: true}},
		{"tmpfs-size=64m,type=tmpfs,target=/t,tmpfs-mode=0700", Spec{Kind: Tmpfs, Target: "/t", Size: 64 << 20, Mode: 0o700}},
		{`type=bind,"source=/with,comma",target=/b`, Spec{Kind: Bind, Source: "/with,comma", Target: "/b"}},
		{"type=bind,source=/a,target=/b,bind-propagation=rprivate", Spec{Kind: Bind, Source: "/a", Target: "/b"}},
	} {
		got, err := ParseMount(c.in)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
		} else if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q: want (-), got (+):\n%s", c.in, diff)
		}
	}
	for in, word := range map[string]string{
		"":                                                     "want type=",
		"type=bind,target=/b":                                  "needs a source",
		"type=nfs,target=/b":                                   "unknown type",
		"type=bind,source=/a":                                  "target is empty",
		"type=tmpfs,source=/a,target=/b":                       "has no source",
		"type=volume,source=/a,target=/b":                      "a path of the host is for type=bind",
		"source=x,target=/b":                                   "letter or digit first",
		"type=bind,source=/a,target=/b,x=y":                    "unknown field",
		"type=bind,source=/a,target=/b,tmpfs-size=3":           "is for type=tmpfs",
		"type=bind,source=/a,target=/b,volume-nocopy":          "is for type=volume",
		"type=bind,source=/a,target=/b,readonly=maybe":         "neither true nor false",
		"type=volume,source=aa,target=/b\ntype=tmpfs":          "more than one line",
		"type=tmpfs,target=/b,tmpfs-mode=9":                    "not a mode",
		"type=bind,source=/a,target=/b,volume-driver=nfs":      "not supported",
		"type=tmpfs,target=/b,tmpfs-size=99999999999999999999": "not a size",
	} {
		if got, err := ParseMount(in); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%q: %+v, %v; want an error with %q", in, got, err, word)
		}
	}
	if _, err := ParseMount("type=bind,source=/a,target=/b,bind-propagation=rshared"); !errors.Is(err, ErrPropagation) {
		t.Errorf("bind-propagation: %v", err)
	}
}

func TestParseTmpfs(t *testing.T) {
	got, err := ParseTmpfs("/run:rw,noexec,size=64k,mode=755,uid=7,gid=8")
	want := Spec{Kind: Tmpfs, Target: "/run", Size: 64 << 10, Mode: 0o755, UID: 7, GID: 8, Idle: []string{"noexec"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, in := range []string{"", "run", "/run:", "/run:size", "/run:size=", "/run:size=x", "/run:mode=8", "/run:ro=1", "/run:what"} {
		if got, err := ParseTmpfs(in); err == nil {
			t.Errorf("%q: %+v, want an error", in, got)
		}
	}
}

// FuzzParse: whatever is accepted is well formed, and String says it again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"/a:/b:ro", "notes:/n:nocopy", "/data", "type=bind,source=/a,target=/b", "type=tmpfs,target=/t,tmpfs-size=1g", "/run:size=64m,mode=1777"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		for _, parse := range []func(string) (Spec, error){ParseVolume, ParseMount, ParseTmpfs, ParseBind} {
			s, err := parse(in)
			if err != nil {
				continue
			}
			if !path.IsAbs(s.Target) || path.Clean(s.Target) != s.Target {
				t.Fatalf("%q: target %q", in, s.Target)
			}
			if s.Kind == Bind && s.Source == "" {
				t.Fatalf("%q: a bind of nothing", in)
			}
			if strings.ContainsAny(s.Source+s.Target, "\r\n") {
				continue // CSV makes one of several line ends
			}
			again, err := ParseMount(s.String())
			if err != nil {
				t.Fatalf("%q: String %q: %v", in, s.String(), err)
			}
			again.Create, again.Idle, again.UID, again.GID = s.Create, s.Idle, s.UID, s.GID
			if diff := cmp.Diff(s, again); diff != "" {
				t.Fatalf("%q: String %q:\n%s", in, s.String(), diff)
			}
		}
	})
}
