package mountopt

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func ptr[T any](v T) *T { return &v }

func TestParse(t *testing.T) {
	hour := ptr(time.Hour)
	for _, tt := range []struct {
		in   string
		want Options
		err  string
	}{
		{in: "lowerdir=/a:/b,upperdir=/u,workdir=/w", want: Options{Lowers: []string{"/a", "/b"}, Upper: "/u", Work: "/w"}},
		{in: `lowerdir=/a\:b,upperdir=/u\,v,workdir=/w\\x`, want: Options{Lowers: []string{"/a:b"}, Upper: "/u,v", Work: `/w\x`}},
		{in: "lowerdir=/a::/d", want: Options{Lowers: []string{"/a"}, DataLowers: []string{"/d"}}},
		{in: `lowerdir+=/a:b\,c\d,lowerdir+=/e,datadir+=/d::`, want: Options{Lowers: []string{`/a:b,c\d`, "/e"}, DataLowers: []string{"/d::"}}},
		{in: "lowerdir=/a,lowerdir=/b", want: Options{Lowers: []string{"/b"}}},
		{in: "lowerdir=/a,lowerdir=,lowerdir+=/b", want: Options{Lowers: []string{"/b"}}},
		{in: "lowerdir=/a,lowerdir+=/b", err: "option lowerdir+=/b: cannot follow lowerdir"},
		{in: "lowerdir=/a,datadir+=/b", err: "option datadir+=/b: cannot follow lowerdir"},
		{in: "lowerdir+=/a,lowerdir=/b", want: Options{Lowers: []string{"/b"}}},
		{in: "datadir+=/d,lowerdir+=/a", err: "lowerdir+=/a: a directory after a data-only one"},
		{in: "lowerdir=/a::/d:/b", err: "option lowerdir=/a::/d:/b: "},
		{in: "lowerdir+=", err: "needs a path"},
		{in: "lowerdir", err: "option lowerdir: needs a value"},
		{in: "upperdir=", err: "needs a path"},

		{in: "redirect_dir=nofollow,index=off,xino=auto,metacopy=on,userxattr,volatile",
			want: Options{Redirect: "nofollow", Index: "off", Metacopy: ptr(true), UserXattr: true, Volatile: true}},
		{in: "metacopy", want: Options{Metacopy: ptr(true)}},
		{in: "metacopy=off", want: Options{Metacopy: ptr(false)}},
		{in: "metacopy=yes", err: "option metacopy=yes: want on or off"},
		{in: "redirect_dir=maybe", err: "want on, off, follow or nofollow"},
		{in: "userxattr=on", err: "option userxattr: takes no value"},
		{in: "fsync=0", want: Options{NoFsync: true}},
		{in: "fsync=0,fsync=1", want: Options{}},
		{in: "fsync=2", err: "want 0, 1, auto or volatile"},
		{in: "fsync=volatile", want: Options{Volatile: true}},
		{in: "volatile,fsync=auto", want: Options{}},
		{in: "fsync=strict", err: "option fsync=strict: not supported: "},
		{in: "uuid=off", err: "option uuid=off: not supported: "},
		{in: "=x", err: "option =x: has no name"},
		{in: "ro,user_id=0,lowerdir=/a,remount,relatime", want: Options{Remount: []Pair{{Key: "ro"}, {Key: "relatime"}}}},
		{in: "noatime", want: Options{NoAtime: true}},
		{in: "noatime,relatime", want: Options{}},
		{in: "atime,noatime", want: Options{NoAtime: true}},
		{in: "relatime=1", err: "option relatime: takes no value"},
		{in: "noacl,static_nlink", want: Options{NoACL: true, StaticNlink: true}},
		{in: "xino=maybe", err: "option xino=maybe: "},

		{in: "uidmapping=0:1000:1:1:100000:65536,gidmapping=0:1000:1", want: Options{
			UIDMap: []IDRange{{0, 1000, 1}, {1, 100000, 65536}}, GIDMap: []IDRange{{0, 1000, 1}}}},
		{in: "uidmapping=0:1000", err: "want LAYER:VIEW:COUNT"},
		{in: "uidmapping=0:1000:0", err: "empty or too long"},
		{in: "uidmapping=0:0:10:9:20:1", err: "overlaps"},
		{in: "uidmapping=0:0:10:20:9:1", err: "overlaps"},
		{in: "uidmapping=0:0:-1", err: "not a user or group number"},
		{in: "squash_to_root", want: Options{SquashUID: ptr(uint32(0)), SquashGID: ptr(uint32(0))}},
		{in: "squash_to_uid=7,squash_to_gid=8", want: Options{SquashUID: ptr(uint32(7)), SquashGID: ptr(uint32(8))}},
		{in: "squash_to_uid=4294967295", err: "not a user or group number"},
		{in: "xattr_permissions=2", want: Options{XattrPermissions: 2}},
		{in: "xattr_permissions=3", err: "want 0, 1 or 2"},

		{in: "timeout=3600", want: Options{EntryTimeout: hour, AttrTimeout: hour, NegativeTimeout: hour}},
		{in: "attr_timeout=0.5", want: Options{AttrTimeout: ptr(500 * time.Millisecond)}},
		{in: "attr_timeout=1e18", want: Options{AttrTimeout: ptr(10 * 365 * 24 * time.Hour)}},
		{in: "timeout=-1", err: "number of seconds"},
		{in: "timeout=NaN", err: "number of seconds"},
		{in: "writeback=0", want: Options{Writeback: ptr(false)}},
		{in: "settle_budget=0", want: Options{SettleBudget: -1}},
		{in: "settle_budget=off", want: Options{SettleBudget: -1}},
		{in: "settle_budget=1M", want: Options{SettleBudget: 1 << 20}},
		{in: "threshold=0", want: Options{Threshold: 1}},
		{in: "mode=passthrough,threshold=1M,nosettle,log=/l,debug", want: Options{
			Mode: "passthrough", Threshold: 1 << 20, NoSettle: true, Log: "/l", Verbose: true}},
		{in: "threshold=off", want: Options{Threshold: -1}},
		{in: "threshold=0", want: Options{Threshold: 1}},
		{in: "threshold=9999999999G", err: "is not a size"},

		{in: "ro,nosuid,nodev,noexec,noatime,allow_other,fsname=a\\,b", want: Options{
			ReadOnly: true, NoSuid: true, NoDev: true, NoExec: true, NoAtime: true, AllowOther: true, Source: "a,b"}},
		{in: "ro,nosuid,nodev,noexec,rw,suid,dev,exec", want: Options{}},
		{in: `context="s:o:c1,c2"`, want: Options{Context: []string{`context="s:o:c1,c2"`}}},

		{in: "default_permissions,threaded=1,fast_ino=0,_netdev,nofail,relatime,x-systemd.automount,comment=a", want: Options{}},
		{in: "verity=off,nfs_export=off,uuid=auto,noxattrs=0", want: Options{}},
		{in: "verity=require", err: "option verity=require: not supported: "},
		{in: "nfs_export=on", err: "option nfs_export=on: not supported: "},
		{in: "plugins=a.so", err: "option plugins: not supported: "},
		{in: "sync", err: "option sync: not supported: "},
		{in: "lowerdirs=/a", err: "option lowerdirs: unknown"},
		{in: "=", err: "option =: has no name"},
	} {
		var got Options
		err := got.Parse(tt.in)
		if !matches(err, tt.err) {
			t.Errorf("%q: error %v, want %q", tt.in, err, tt.err)
			continue
		}
		if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreUnexported(Options{})); diff != "" && tt.err == "" {
			t.Errorf("%q (-want +got):\n%s", tt.in, diff)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct{ in, err string }{
		{"lowerdir=/a", ""},
		{"lowerdir=/a,metacopy=on,redirect_dir=follow", ""},
		{"lowerdir=/a,metacopy=off,redirect_dir=off,userxattr", ""},
		{"upperdir=/u", "lowerdir: missing"},
		{"datadir+=/d", "at least one other"},
		{"lowerdir=/a,metacopy=on,redirect_dir=nofollow", "contradicts redirect_dir=nofollow"},
		{"lowerdir=/a,metacopy=on,userxattr", "contradicts userxattr"},
		{"lowerdir=/a,redirect_dir=on,userxattr", "contradicts userxattr"},
		{"lowerdir=/a,mode=passthrough,writeback=1", "contradicts mode=passthrough"},
		{"lowerdir=/a,mode=shared,writeback=1", "contradicts mode=shared"},
	} {
		var o Options
		if err := o.Parse(tt.in); err != nil {
			t.Fatalf("%q: %v", tt.in, err)
		}
		if err := o.Validate(); !matches(err, tt.err) {
			t.Errorf("%q: error %v, want %q", tt.in, err, tt.err)
		}
	}
}

// Each row of the table can be asked for help, and says what it needs to.
func TestTable(t *testing.T) {
	for name, r := range table {
		switch {
		case r.kind == used && (r.set == nil || r.text == ""):
			t.Errorf("%s: does nothing or has no text", name)
		case r.kind == refused && r.text == "":
			t.Errorf("%s: refused without a reason", name)
		case r.value != (r.form != ""):
			t.Errorf("%s: takes a value: %v, form %q", name, r.value, r.form)
		}
	}
	if n := len(Docs()) + len(Refused()) + len(Silent()); n != len(table) {
		t.Errorf("%d options are listed of %d", n, len(table))
	}
}
