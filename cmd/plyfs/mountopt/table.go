package mountopt

import (
	"errors"
	"slices"
	"strings"

	"github.com/plyfs/plyfs/overlay/graft"
)

type kind uint8

const (
	used kind = iota
	harmless
	refused
)

// row is one option. A row without set takes any value or none. One of kind
// harmless or refused with a set function depends on its value.
type row struct {
	kind     kind
	value    bool // takes one
	optional bool // and may come without
	form     string
	text     string // for used rows: help; for refused ones: why
	set      func(o *Options, v string) error
}

var table = buildTable()

func buildTable() map[string]row {
	t := make(map[string]row, 128) // of more than a hundred: it need not grow, at the start of every command
	layerRows(t)
	unionRows(t)
	ownerRows(t)
	serveRows(t)
	mountRows(t)
	graftRows(t)
	silence(t)
	refuse(t)
	return t
}

func layerRows(t map[string]row) {
	t["lowerdir"] = row{value: true, form: "A:B:C[::D]", text: "lower directories, topmost first; after :: those that hold only data",
		set: func(o *Options, v string) (err error) {
			o.Lowers, o.DataLowers = nil, nil
			if o.whole = v != ""; o.whole { // the kernel: lowerdir= takes all of them back
				o.Lowers, o.DataLowers, err = SplitDirs(v)
			}
			return err
		}}
	t["lowerdir+"] = row{value: true, form: "DIR", text: "one more lower directory, below those before; colons need no backslash",
		set: func(o *Options, v string) error {
			if o.whole {
				return errAfterWhole
			}
			if len(o.DataLowers) > 0 {
				return errors.New("a directory after a data-only one must be data-only too")
			}
			return appendDir(&o.Lowers, v)
		}}
	t["datadir+"] = row{value: true, form: "DIR", text: "one more directory that holds only data",
		set: func(o *Options, v string) error {
			if o.whole {
				return errAfterWhole
			}
			return appendDir(&o.DataLowers, v)
		}}
	t["upperdir"] = row{value: true, form: "DIR", text: "the writable layer", set: func(o *Options, v string) error { return setDir(&o.Upper, v) }}
	t["workdir"] = row{value: true, form: "DIR", text: "an empty directory on the upper's filesystem", set: func(o *Options, v string) error { return setDir(&o.Work, v) }}
}

// errAfterWhole: it could mean the directory in addition or instead (kernel: ovl_mount_dir_check).
var errAfterWhole = errors.New("cannot follow lowerdir, which names all directories: say them all one way or the other")

func unionRows(t map[string]row) {
	t["redirect_dir"] = row{value: true, form: "on|off|follow|nofollow", text: "rename merged directories by a mark in the upper",
		set: func(o *Options, v string) error { return choose(&o.Redirect, v, "on", "off", "follow", "nofollow") }}
	t["metacopy"] = row{value: true, optional: true, form: "on|off", text: "let files whose attributes changed keep their data in the lower layer",
		set: func(o *Options, v string) error { return onOff(&o.Metacopy, v) }}
	t["index"] = row{value: true, form: "on|off", text: "keep hard links together over copy-ups and mounts",
		set: func(o *Options, v string) error { return choose(&o.Index, v, "on", "off") }}
	t["userxattr"] = row{text: "keep marks in user. attributes instead of trusted. ones", set: func(o *Options, _ string) error { o.UserXattr = true; return nil }}
	t["volatile"] = row{text: "wait for the disk at the unmount only; not unmounted, the upper is refused at the next mount", set: func(o *Options, _ string) error { o.Volatile = true; return nil }}
	t["fsync"] = row{value: true, form: "0|1|auto|volatile", text: "0: answer fsync at once; auto (the default) and volatile are the kernel's words",
		set: func(o *Options, v string) error {
			switch v { // the first two are those of fuse-overlayfs
			case "0", "1":
				o.NoFsync = v == "0"
			case "auto", "volatile":
				o.Volatile = v == "volatile"
			case "strict":
				return errors.New("not supported: a copy-up is not synced by itself; fsync the file")
			default:
				return errors.New("want 0, 1, auto or volatile")
			}
			return nil
		}}
	t["noacl"] = row{text: "no POSIX access lists", set: func(o *Options, _ string) error { o.NoACL = true; return nil }}
	t["acl"] = row{text: "POSIX access lists (the default)", set: func(o *Options, _ string) error { o.NoACL = false; return nil }}
	t["static_nlink"] = row{text: "directories show one link, whatever they contain", set: func(o *Options, _ string) error { o.StaticNlink = true; return nil }}
	t["threshold"] = row{value: true, form: "SIZE|off", text: "from this size on, a write copies up only the range it touches",
		set: func(o *Options, v string) (err error) { o.Threshold, err = ParseThreshold(v); return err }}
	t["settle_budget"] = row{value: true, form: "SIZE|off", text: "how much per second of partly copied files is completed when idle (default 64M)",
		set: func(o *Options, v string) (err error) { o.SettleBudget, err = ParseBudget(v); return err }}
	t["nosettle"] = row{text: "leave partly copied files unfinished at unmount", set: func(o *Options, _ string) error { o.NoSettle = true; return nil }}
}

func ownerRows(t map[string]row) {
	t["uidmapping"] = row{value: true, form: "LAYER:VIEW:COUNT[:...]", text: "show owners LAYER... of the layers as VIEW...",
		set: func(o *Options, v string) (err error) { o.UIDMap, err = parseRanges(v); return err }}
	t["gidmapping"] = row{value: true, form: "LAYER:VIEW:COUNT[:...]", text: "show groups LAYER... of the layers as VIEW...",
		set: func(o *Options, v string) (err error) { o.GIDMap, err = parseRanges(v); return err }}
	t["squash_to_root"] = row{text: "everything belongs to 0:0", set: func(o *Options, _ string) error {
		o.SquashUID, o.SquashGID = new(uint32), new(uint32)
		return nil
	}}
	t["squash_to_uid"] = row{value: true, form: "UID", text: "everything belongs to this user", set: func(o *Options, v string) error { return setID(&o.SquashUID, v) }}
	t["squash_to_gid"] = row{value: true, form: "GID", text: "everything belongs to this group", set: func(o *Options, v string) error { return setID(&o.SquashGID, v) }}
	t["xattr_permissions"] = row{value: true, form: "0|1|2", text: "keep owner and mode in an attribute: 1 a privileged one, 2 user.containers.override_stat",
		set: func(o *Options, v string) error {
			if len(v) != 1 || v[0] < '0' || v[0] > '2' {
				return errors.New("want 0, 1 or 2")
			}
			o.XattrPermissions = int(v[0] - '0')
			return nil
		}}
}

func serveRows(t map[string]row) {
	t["timeout"] = row{value: true, form: "SECONDS", text: "how long the kernel may keep names and attributes",
		set: func(o *Options, v string) error {
			d, err := seconds(v)
			o.EntryTimeout, o.AttrTimeout, o.NegativeTimeout = d, d, d
			return err
		}}
	t["entry_timeout"] = row{value: true, form: "SECONDS", text: "how long the kernel may keep names", set: func(o *Options, v string) (err error) { o.EntryTimeout, err = seconds(v); return err }}
	t["attr_timeout"] = row{value: true, form: "SECONDS", text: "how long the kernel may keep attributes", set: func(o *Options, v string) (err error) { o.AttrTimeout, err = seconds(v); return err }}
	t["negative_timeout"] = row{value: true, form: "SECONDS", text: "how long the kernel may keep that a name is missing", set: func(o *Options, v string) (err error) { o.NegativeTimeout, err = seconds(v); return err }}
	t["writeback"] = row{value: true, form: "0|1", text: "let the kernel gather small writes",
		set: func(o *Options, v string) error {
			on, err := zeroOne(v)
			o.Writeback = &on
			return err
		}}
	t["mode"] = row{value: true, form: "cached|passthrough|shared", text: "what the kernel may do by itself",
		set: func(o *Options, v string) error { return choose(&o.Mode, v, "cached", "passthrough", "shared") }}
	t["log"] = row{value: true, form: "FILE", text: "where the daemon writes messages", set: func(o *Options, v string) error { return setDir(&o.Log, v) }}
	t["debug"] = row{text: "say more", set: func(o *Options, _ string) error { o.Verbose = true; return nil }}
}

func mountRows(t map[string]row) {
	for name, f := range map[string]struct {
		field func(o *Options) *bool
		value bool
		text  string
	}{
		"ro":          {func(o *Options) *bool { return &o.ReadOnly }, true, "read-only, even with an upper"},
		"rw":          {func(o *Options) *bool { return &o.ReadOnly }, false, "writable, if there is an upper (the default)"},
		"nosuid":      {func(o *Options) *bool { return &o.NoSuid }, true, "set-id bits have no effect"},
		"suid":        {func(o *Options) *bool { return &o.NoSuid }, false, "set-id bits count (the default for root; others cannot have it)"},
		"nodev":       {func(o *Options) *bool { return &o.NoDev }, true, "device files have no effect"},
		"dev":         {func(o *Options) *bool { return &o.NoDev }, false, "device files work (the default for root; others cannot have it)"},
		"noexec":      {func(o *Options) *bool { return &o.NoExec }, true, "nothing can be executed"},
		"exec":        {func(o *Options) *bool { return &o.NoExec }, false, "programs can be executed (the default)"},
		"noatime":     {func(o *Options) *bool { return &o.NoAtime }, true, "reading files changes no access times"},
		"allow_other": {func(o *Options) *bool { return &o.AllowOther }, true, "other users may enter (the default for root)"},
	} {
		t[name] = row{text: f.text, set: func(o *Options, _ string) error { *f.field(o) = f.value; return nil }}
	}
	t["remount"] = row{text: "make a live mount ro, nosuid, nodev, noexec or noatime, or rw, suid, dev, exec or atime; what else is asked for has no effect",
		set: func(o *Options, _ string) error { o.remount(nil); return nil }}
	t["fsname"] = row{value: true, form: "NAME", text: "the first column of /proc/mounts", set: func(o *Options, v string) error { o.Source = Unescape(v); return nil }}
	for _, name := range []string{"context", "fscontext", "defcontext", "rootcontext"} {
		t[name] = row{value: true, form: "LABEL", text: "SELinux label, for the kernel (root)", set: func(o *Options, v string) error {
			o.Context = append(o.Context, name+"="+v)
			return nil
		}}
	}
}

func graftRows(t map[string]row) {
	for name, f := range map[string]struct {
		form, text string
		parse      func(string) (graft.Spec, error)
	}{
		"bind":   {"SRC:DST[:ro]", "show a directory or file of the host at DST in the view", graft.ParseBind},
		"volume": {"[SRC:]DST[:ro,nocopy]", "as docker run -v: a path of the host, or a volume by its name", graft.ParseVolume},
		"tmpfs":  {"DST[:OPTIONS]", "an empty place in memory at DST: size, mode, uid, gid, ro", graft.ParseTmpfs},
	} {
		t[name] = row{value: true, form: f.form, text: f.text, set: func(o *Options, v string) error {
			s, err := f.parse(unescapeCommas(v))
			if err == nil {
				o.Grafts = append(o.Grafts, s)
			}
			return err
		}}
	}
}

// silence lists what is so here anyway, or is meant for somebody else.
func silence(t map[string]row) {
	for _, name := range strings.Fields(`
		default_permissions threaded fast_ino
		async norelatime diratime nodiratime lazytime nolazytime nostrictatime
		nomand silent loud defaults nofail auto noauto nouser user users owner group _netdev comment
		subtype max_read max_write max_readahead max_background congestion_threshold
		big_writes async_read sync_read atomic_o_trunc kernel_cache
		splice_read splice_write splice_move no_splice_read no_splice_write no_splice_move
		use_ino readdir_ino hard_remove intr intr_signal nonempty
		clone_fd max_idle_threads max_threads noforget remember
		override_creds`) {
		t[name] = row{kind: harmless}
	}
	for _, name := range []string{"atime", "relatime"} { // so anyway, unless noatime comes before
		t[name] = row{kind: harmless, set: func(o *Options, _ string) error { o.NoAtime = false; return nil }}
	}
	only := func(name, reason string, values ...string) {
		t[name] = row{kind: harmless, value: true, form: strings.Join(values, "|"), set: func(_ *Options, v string) error {
			if slices.Contains(values, v) {
				return nil
			}
			return errors.New("not supported: " + reason)
		}}
	}
	only("xino", "inode numbers are always kept apart", "on", "off", "auto")
	only("nfs_export", "the mount cannot be exported by file handle", "off")
	only("verity", "digests of lower files are not checked", "off")
	only("uuid", "a FUSE mount has no filesystem UUID of its own, and those of the layers count", "auto", "null")
	only("noxattrs", "extended attributes cannot be hidden", "0")
}

func refuse(t map[string]row) {
	for name, why := range map[string]string{
		"allow_root":       "only allow_other exists",
		"auto_cache":       "only one side changes the files of a mount; see mode=shared",
		"auto_unmount":     "a dead mount is replaced at the next plyfs mount",
		"blkdev":           "layers are directories",
		"blksize":          "layers are directories",
		"direct_io":        "open files with O_DIRECT instead",
		"dirsync":          "use fsync on directories",
		"gid":              "use gidmapping or squash_to_gid",
		"ino32_t":          "inode numbers have 64 bits",
		"mand":             "the kernel has no mandatory locks any more",
		"modules":          "there are no modules",
		"nooverride_creds": "layers are accessed with the daemon's own rights",
		"plugins":          "there are no plugins",
		"strictatime":      "reading lower files never changes their access times",
		"sync":             "use fsync",
		"uid":              "use uidmapping or squash_to_uid",
		"umask":            "modes are those of the layers",
	} {
		t[name] = row{kind: refused, text: why}
	}
}

// isUserspace says whether an option is a note of somebody to himself; mount(8)
// keeps such options from kernels and helpers, older ones do not.
func isUserspace(key string) bool {
	return strings.HasPrefix(key, "x-") || strings.HasPrefix(key, "X-")
}

// Doc describes one option that changes something.
type Doc struct{ Name, Form, Text string }

// Docs describes the options that are used, by name.
func Docs() []Doc { return list(used) }

// Refused describes the options that are known, and errors, with the reason.
func Refused() []Doc { return list(refused) }

// Silent names the options that are accepted and change nothing.
func Silent() []Doc { return list(harmless) }

func list(k kind) []Doc {
	var docs []Doc
	for name, r := range table {
		if r.kind == k {
			docs = append(docs, Doc{name, r.form, r.text})
		}
	}
	slices.SortFunc(docs, func(a, b Doc) int { return strings.Compare(a.Name, b.Name) })
	return docs
}
