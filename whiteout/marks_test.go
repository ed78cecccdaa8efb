package whiteout

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpaque(t *testing.T) {
	for in, want := range map[string]Opaque{"y": OpaqueYes, "x": OpaqueXattrWhiteouts, "": OpaqueNone, "n": OpaqueNone, "yy": OpaqueNone, "Y": OpaqueNone} {
		if got := ParseOpaque([]byte(in)); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

func TestWhiteoutNames(t *testing.T) {
	for in, want := range map[string]string{".wh.a": "a", ".wh..hidden": ".hidden", ".wh.": "", ".wh..": "", ".wh...": "", "a": "", ".wh..wh..opq": "", ".wh..wh.plnk": "", ".wh.a.wh.b": "a.wh.b"} {
		got, ok := AUFSTarget(in)
		if got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", in, got, ok)
		}
	}
	if !IsWhiteoutDev(0o020000, 0, 0) || IsWhiteoutDev(0o020644, 1, 3) || IsWhiteoutDev(0o060000, 0, 0) || IsWhiteoutDev(0o100000, 0, 0) {
		t.Error("a whiteout is a character device 0:0 and nothing else")
	}
}

func TestRedirect(t *testing.T) {
	for in, ok := range map[string]bool{
		"a": true, "/a": true, "/a/b": true, "with space": true, "..a": true,
		"": false, "/": false, ".": false, "..": false, "/..": false, "/a/../b": false, "a/b": false, "/a//b": false, "/a/": false, "a\x00": false,
		strings.Repeat("n", 255): true, strings.Repeat("n", 256): false,
		strings.Repeat("/name", 819): true, strings.Repeat("/name", 820): false,
	} {
		r, err := ParseRedirect([]byte(in))
		if (err == nil) != ok {
			t.Errorf("%.20q (%d bytes): %v", in, len(in), err)
		}
		if err == nil && (string(r.Encode()) != in || r.Absolute != (in[0] == '/')) {
			t.Errorf("%.20q: %+v", in, r)
		}
	}
}

func TestMarksRoundTrip(t *testing.T) {
	for _, m := range []Metacopy{{}, {Algo: 1, Digest: []byte(strings.Repeat("d", 32))}, {Algo: 2, Digest: []byte(strings.Repeat("d", 64))}} {
		if got, err := ParseMetacopy(m.Encode()); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v: %+v, %v", m, got, err)
		}
	}
	for text, n := range map[string]Nlink{"U+1": {true, 1}, "L-2": {false, -2}, "U+0": {true, 0}} {
		if got, err := ParseNlink([]byte(text)); err != nil || got != n || string(n.Encode()) != text {
			t.Errorf("%s: %+v, %v, %s", text, got, err, n.Encode())
		}
	}
	for _, bad := range []string{"", "U", "U1", "X+1", "U+", "U+x", "U+99999999999", "U++1", "U+1 "} {
		if _, err := ParseNlink([]byte(bad)); err == nil {
			t.Errorf("%q is a link count", bad)
		}
	}
	for text, p := range map[string]ProtAttr{"": {}, "a": {Append: true}, "i": {Immutable: true}, "ai": {true, true}} {
		if got := ParseProtAttr([]byte(text)); got != p || string(p.Encode()) != text {
			t.Errorf("%q: %+v, %q", text, got, p.Encode())
		}
	}
	if p := ParseProtAttr([]byte("a?i")); p != (ProtAttr{Append: true}) {
		t.Errorf("an unknown letter ends the mark: %+v", p)
	}
	for text, o := range map[string]OverrideStat{
		"0:0:0755":           {0, 0, 0o755, ""},
		"5:6:04640:file":     {5, 6, 0o4640, "file"},
		"1:2:0644:block-8-1": {1, 2, 0o644, "block-8-1"},
		"1:2:0644:char1:3":   {1, 2, 0o644, "char1:3"},
		"1:2:0644:later":     {1, 2, 0o644, "later"},
	} {
		if got, err := ParseOverrideStat([]byte(text)); err != nil || got != o || string(o.Encode()) != text {
			t.Errorf("%s: %+v, %v, %s", text, got, err, o.Encode())
		}
	}
	if o, err := ParseOverrideStat([]byte("5:6:100640")); err != nil || o.Mode != 0o640 {
		t.Errorf("with type bits, as fuse-overlayfs writes it: %+v, %v", o, err)
	}
	for _, bad := range []string{"", "1", "1:2", "1:2:9", "-1:2:3", "1:2:3:", "1:2:3:a:b", "1:2:3:block8:", "1:2:3:char1:2:3", "a:b:c", "1:2:1777777"} {
		if _, err := ParseOverrideStat([]byte(bad)); err == nil {
			t.Errorf("%q is an owner", bad)
		}
	}
}

func TestOverrideStatSpecial(t *testing.T) {
	for typ, want := range map[string][3]uint32{
		"pipe": {typeFIFO}, "socket": {typeSocket},
		"block-8-1": {typeBlock, 8, 1}, "block8:1": {typeBlock, 8, 1}, "block:8:1": {typeBlock, 8, 1},
		"char-1-3": {typeChar, 1, 3}, "char1:3": {typeChar, 1, 3}, "char-4095-1048575": {typeChar, 4095, 1<<20 - 1},
	} {
		mode, major, minor, ok := OverrideStat{Type: typ}.Special()
		if got := [3]uint32{mode, major, minor}; got != want || !ok {
			t.Errorf("%s: %v, %v", typ, got, ok)
		}
	}
	for _, typ := range []string{"", "file", "dir", "symlink", "block", "char", "char-1", "char-1-", "char--1-2", "char-4096-0", "block-1-x", "pipes"} {
		if _, _, _, ok := (OverrideStat{Type: typ}).Special(); ok {
			t.Errorf("%q is a special file", typ)
		}
	}
}

// Erofs writes the high half of an inode number first; others that have handles of this type do not.
func TestOriginOfErofs(t *testing.T) {
	fid := binary.NativeEndian.AppendUint32(nil, 1)
	fid = binary.NativeEndian.AppendUint32(fid, 12)
	fid = binary.NativeEndian.AppendUint32(fid, 0)
	for magic, want := range map[int64]uint64{unix.EROFS_SUPER_MAGIC_V1: 1<<32 | 12, unix.XFS_SUPER_MAGIC: binary.NativeEndian.Uint64(fid)} {
		if ino, ok := (Origin{Type: 0x81, FID: fid}).Ino(magic); ino != want || !ok {
			t.Errorf("%x: inode %x, %v", magic, ino, ok)
		}
	}
}

func TestOrigin(t *testing.T) {
	ino32 := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, 12), 1)
	tmpfs := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, 9), 12), 1)
	ino64 := binary.NativeEndian.AppendUint64(nil, 1<<40)
	for _, tt := range []struct {
		o   Origin
		ino uint64
	}{
		{Origin{Type: 1, UUID: [16]byte{1, 2}, FID: ino32}, 12},
		{Origin{Type: 1, FID: tmpfs}, 12 | 1<<32},
		{Origin{Flags: OriginUpper, Type: 0x81, FID: ino64}, 1 << 40},
		{Origin{Type: 0x4d, FID: ino64}, 1 << 40},
		{Origin{Type: 0xfe, FID: ino64}, 0},
	} {
		v := tt.o.Encode()
		got, err := ParseOrigin(v)
		if err != nil || !reflect.DeepEqual(got, tt.o) {
			t.Errorf("%+v: %+v, %v", tt.o, got, err)
		}
		if ino, ok := got.Ino(0); ino != tt.ino || ok != (tt.ino != 0) {
			t.Errorf("%+v: inode %d, %v", tt.o, ino, ok)
		}
		if _, ok := got.Ino(unix.ISOFS_SUPER_MAGIC); ok {
			t.Errorf("%+v of an iso9660 has an inode number", tt.o)
		}
		for i := range v { // any shorter record is none, and the fixed bytes are looked at
			if _, err := ParseOrigin(v[:i]); err == nil {
				t.Errorf("a record cut to %d bytes was accepted", i)
			}
		}
		for _, i := range []int{0, 1, 2} {
			b := append([]byte(nil), v...)
			b[i] ^= 0x55
			if _, err := ParseOrigin(b); err == nil {
				t.Errorf("byte %d damaged, and accepted", i)
			}
		}
		b := append([]byte(nil), v...)
		b[3] ^= flagBigEndian
		if _, err := ParseOrigin(b); err == nil {
			t.Error("a record of the other byte order was accepted")
		}
	}
	if (Origin{}).Encode() != nil || (Origin{FID: make([]byte, 129)}).Encode() != nil {
		t.Error("a handle that does not fit was encoded")
	}
}
