package whiteout

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

// The laws of the package comment, for any bytes: what Parse accepts encodes to something that parses to
// the same value.

func FuzzOrigin(f *testing.F) {
	f.Add([]byte{})
	f.Add(Origin{Type: 1, FID: []byte("12345678")}.Encode())
	f.Add(Origin{Flags: OriginUpper, Type: 0x81, UUID: [16]byte{1}, FID: bytes.Repeat([]byte{7}, 128)}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseOrigin(b)
		if err != nil {
			return
		}
		o.Ino(0)
		again, err := ParseOrigin(o.Encode())
		if err != nil || !reflect.DeepEqual(o, again) {
			t.Fatalf("%x: %+v, then %+v, %v", b, o, again, err)
		}
		if len(o.IndexName()) != 2*len(o.Encode()) || len(o.IndexName()) > 2*originMax {
			t.Fatalf("index name %q", o.IndexName())
		}
	})
}

func FuzzRedirect(f *testing.F) {
	for _, s := range []string{"", "a", "/a/b", "..", "/..", "a/b", "/a//b", "/", "/a/../b", "a\x00b", "/a/"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRedirect(b)
		if err != nil {
			return
		}
		again, err := ParseRedirect(r.Encode())
		if err != nil || again != r {
			t.Fatalf("%q: %+v, then %+v, %v", b, r, again, err)
		}
		// Nothing that is accepted leads out of a layer.
		for i, e := range strings.Split(r.Path, "/") {
			if e == "." || e == ".." || e == "" && !(r.Absolute && i == 0) {
				t.Fatalf("%q was accepted", b)
			}
		}
		if !r.Absolute && strings.Contains(r.Path, "/") {
			t.Fatalf("%q was accepted as a name", b)
		}
	})
}

func FuzzMetacopy(f *testing.F) {
	f.Add([]byte{})
	f.Add(Metacopy{Algo: 1, Digest: bytes.Repeat([]byte{1}, 32)}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMetacopy(b)
		if err != nil {
			return
		}
		again, err := ParseMetacopy(m.Encode())
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%x: %+v, then %+v, %v", b, m, again, err)
		}
	})
}

func FuzzNlink(f *testing.F) {
	for _, s := range []string{"U+1", "L-2", "U+-1", "L+2147483648", "U-0"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := ParseNlink(b)
		if err != nil {
			return
		}
		again, err := ParseNlink(n.Encode())
		if err != nil || again != n {
			t.Fatalf("%q: %+v, then %+v, %v", b, n, again, err)
		}
	})
}

func FuzzProtAttr(f *testing.F) {
	f.Add([]byte("ai"))
	f.Add([]byte("ixa"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := ParseProtAttr(b)
		if again := ParseProtAttr(p.Encode()); again != p {
			t.Fatalf("%q: %+v, then %+v", b, p, again)
		}
	})
}

func FuzzOverrideStat(f *testing.F) {
	for _, s := range []string{"0:0:0755", "5:6:100640", "1:2:04755:char-1-3", "1:2:3:block8:0", "1:2:3:", ":::", "4294967295:0:0", "1:2:8"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseOverrideStat(b)
		if err != nil {
			return
		}
		again, err := ParseOverrideStat(o.Encode())
		if err != nil || again != o || o.Mode > 0o7777 {
			t.Fatalf("%q: %+v, then %+v, %v", b, o, again, err)
		}
		if typ, major, minor, ok := o.Special(); ok && (typ&^typeMask != 0 || major > 0xfff || minor > 0xfffff) {
			t.Fatalf("%q: %o %d:%d", b, typ, major, minor)
		}
	})
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"a", ".wh.a", ".wh..wh..opq", ".wh.", ".wh...", "trusted.overlay.opaque", "user.overlay.overlay.x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if target, ok := AUFSTarget(s); ok && (AUFSWhiteout(target) != s || target == "." || target == ".." || target == "") {
			t.Fatalf("%q hides %q", s, target)
		}
		for _, ns := range []Namespace{Trusted, User} {
			e, ok := ns.Escape(s)
			if ok != ns.IsPrivate(s) {
				t.Fatalf("%q: escaped %v, private %v", s, ok, ns.IsPrivate(s))
			}
			if back, isEscaped := ns.Unescape(e); ok && (!isEscaped || back != s) {
				t.Fatalf("%q: escaped %q, back %q", s, e, back)
			}
		}
		ParseOpaque([]byte(s))
	})
}
