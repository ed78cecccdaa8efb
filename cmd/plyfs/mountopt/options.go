package mountopt

import (
	"fmt"
	"slices"
	"time"

	"github.com/plyfs/plyfs/overlay/graft"
)

// Options is what a list of options, or several, asked for. Pointers and empty
// strings mean "not asked", so that the one who mounts can apply the default.
type Options struct {
	Lowers     []string // topmost first
	DataLowers []string
	whole      bool // lowerdir named them, all of them
	Upper      string
	Work       string

	Redirect  string // on, off, follow, nofollow
	Index     string // on, off
	Metacopy  *bool
	UserXattr bool
	Volatile  bool
	NoFsync   bool // fsync=0: answer fsync at once
	NoACL     bool
	// StaticNlink: directories show one link, whatever they contain.
	StaticNlink bool

	UIDMap, GIDMap       []IDRange
	SquashUID, SquashGID *uint32
	XattrPermissions     int // 0, 1 (privileged xattr) or 2 (user xattr)

	EntryTimeout, AttrTimeout, NegativeTimeout *time.Duration
	Writeback                                  *bool

	Mode      string // cached, passthrough, shared
	Threshold int64  // bytes; 0 is the default, negative: never by range
	NoSettle  bool
	// SettleBudget is how many bytes per second are completed when idle; 0 is the default,
	// negative: none.
	SettleBudget int64
	Log          string // file
	Verbose      bool

	// Remount is what a live mount is to be like instead: words of mount(8) such as ro, in their order; nil
	// if this is a new mount.
	Remount []Pair

	AllowOther                     bool
	ReadOnly                       bool
	NoSuid, NoDev, NoExec, NoAtime bool
	Source                         string

	// What to mount may be a store's: the layers of an Image (a name or id), or the whole of a
	// Container. Root is the store's directory, "" for the default; volumes are there too.
	Image, Container, Root string

	Grafts  []graft.Spec // sources of binds not yet absolute
	Context []string     // SELinux options, raw
}

// IDRange maps Count owners from Layer on, as stored in the layers, to those from
// View on, as seen in the mount.
type IDRange struct{ Layer, View, Count uint32 }

// Error is what is wrong with one option. It is one line.
type Error struct {
	Option string
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("option %s: %s", e.Option, e.Reason) }

// Parse adds a list of options to o. A later option wins over an earlier one of
// the same name, except those that add (lowerdir+, datadir+). The error is an
// *Error; o is then half changed and of no more use.
func (o *Options) Parse(list string) error {
	pairs, err := Split(list)
	if err != nil {
		return err
	}
	if o.Remount != nil || slices.ContainsFunc(pairs, func(p Pair) bool { return p.Key == "remount" && !p.HasValue }) {
		o.remount(pairs)
		return nil
	}
	for _, p := range pairs {
		if err := o.Set(p); err != nil {
			return err
		}
	}
	return nil
}

// remount keeps of a list what a remount can change. The rest mount(8) takes from its tables: the kernel's
// overlayfs does not look at it either.
func (o *Options) remount(pairs []Pair) {
	o.Remount = slices.Grow(o.Remount, 1)
	for _, p := range pairs {
		switch p.Key {
		case "ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "relatime", "atime":
			o.Remount = append(o.Remount, p)
		}
	}
}

// Set adds one option to o.
func (o *Options) Set(p Pair) error {
	r, ok := table[p.Key]
	if !ok {
		if isUserspace(p.Key) {
			return nil
		}
		if p.Key == "" {
			return &Error{"=" + p.Value, "has no name"}
		}
		return &Error{p.Key, "unknown"}
	}
	switch {
	case r.kind == refused && r.set == nil:
		return &Error{p.Key, "not supported: " + r.text}
	case r.kind == harmless && r.set == nil:
		return nil
	case r.value && !p.HasValue && !r.optional:
		return &Error{p.Key, "needs a value"}
	case !r.value && p.HasValue:
		return &Error{p.Key, "takes no value"}
	}
	if err := r.set(o, p.Value); err != nil {
		name := p.Key
		if p.HasValue && len(p.Value) < 80 {
			name += "=" + p.Value
		}
		return &Error{name, err.Error()}
	}
	return nil
}

// Validate reports contradictions between options, as the kernel does for its
// own (ovl_fs_params_verify in fs/overlayfs/params.c).
func (o *Options) Validate() error {
	switch metacopy := o.Metacopy != nil && *o.Metacopy; {
	case o.Image != "" && len(o.Lowers)+len(o.DataLowers) > 0:
		return &Error{"image", "its layers are the lower directories: name no others"}
	case o.Container != "" && (o.Image != "" || o.Upper != "" || o.Work != "" || len(o.Lowers)+len(o.DataLowers) > 0):
		return &Error{"container", "it has its layers: name no others"}
	case len(o.Lowers) == 0 && len(o.DataLowers) > 0:
		return &Error{"datadir+", "data-only directories need at least one other lower directory"}
	case len(o.Lowers) == 0 && o.Image == "" && o.Container == "":
		return &Error{"lowerdir", "missing: a mount needs at least one lower directory"}
	case metacopy && (o.Redirect == "off" || o.Redirect == "nofollow"):
		return &Error{"metacopy=on", "contradicts redirect_dir=" + o.Redirect}
	case metacopy && o.UserXattr:
		return &Error{"metacopy=on", "contradicts userxattr"}
	case o.Redirect == "on" && o.UserXattr:
		return &Error{"redirect_dir=on", "contradicts userxattr"}
	case (o.Mode == "passthrough" || o.Mode == "shared") && o.Writeback != nil && *o.Writeback:
		return &Error{"writeback=1", "contradicts mode=" + o.Mode}
	}
	return nil
}
