package cow

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"reflect"
	"strings"
	"testing"
)

func someRecord() *Record {
	return &Record{Layer: "/layers/one", Path: "usr/bin/true", UUID: [16]byte{1, 15: 2}, HasUUID: true,
		HandleType: 0x81, Handle: []byte{1, 2, 3}, Ino: 1 << 63, Size: 1 << 40,
		Mtime: Time{-5, 999_999_999}, Ctime: Time{1 << 40, 0}, Valid: 1<<40 - 1, Cut: true}
}

func TestRecordRoundTrip(t *testing.T) {
	for _, r := range []*Record{someRecord(), {Path: "x"}, {Path: strings.Repeat("a/", 5000) + "b", Layer: "ä\n"}} {
		got, err := ParseRecord(r.Encode())
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v became %+v, %v", r, got, err)
		}
	}
}

func TestRecordRefusesDamage(t *testing.T) {
	whole := someRecord().Encode()
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 0x10
		if _, err := ParseRecord(b); !errors.Is(err, ErrBadRecord) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := ParseRecord(whole[:i]); !errors.Is(err, ErrBadRecord) {
			t.Errorf("cut to %d: %v", i, err)
		}
	}
	for _, bad := range []Record{
		{Path: ""}, {Path: "/x"}, {Path: "a/../b"}, {Path: ".."}, {Path: "a//b"}, {Path: "a/"}, {Path: "a\x00"},
		{Path: "x", Layer: "a\x00"}, {Path: "x", Valid: 2, Size: 1}, {Path: "x", Valid: -1}, {Path: "x", Size: -1, Valid: -1},
		{Path: "x", Mtime: Time{0, 1e9}}, {Path: "x", Ctime: Time{0, 1e9}},
	} {
		if _, err := ParseRecord(bad.Encode()); !errors.Is(err, ErrBadRecord) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// FuzzRecord: what parses is stored again byte for byte, and names no place
// outside its layer.
func FuzzRecord(f *testing.F) {
	f.Add(someRecord().Encode())
	f.Add((&Record{Path: "x"}).Encode())
	f.Add([]byte("PLYF\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4 { // give the fuzzer the checksum
			binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], castagnoli))
		}
		r, err := ParseRecord(b)
		if err != nil {
			if !errors.Is(err, ErrBadRecord) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if again := r.Encode(); !bytes.Equal(again, b) {
			t.Fatalf("%x parsed to %+v, which is %x", b, r, again)
		}
		if !validPath(r.Path) || r.Valid > r.Size || r.Valid < 0 {
			t.Fatalf("accepted %+v", r)
		}
	})
}
