package graft

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strconv"
	"strings"

	"github.com/plyfs/plyfs/layer/store/naming"
)

// Kind says what a graft shows.
type Kind uint8

// The kinds there are.
const (
	Bind   Kind = iota // a directory or file of the host
	Volume             // a directory that a name stands for
	Tmpfs              // an empty place in memory, gone with the mount
)

func (k Kind) String() string {
	switch k {
	case Bind:
		return "bind"
	case Volume:
		return "volume"
	case Tmpfs:
		return "tmpfs"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Spec is one graft, as the user asked for it.
type Spec struct {
	Kind Kind `json:"kind"`
	// Source is a path of the host (Bind), or a name (Volume), "" for an anonymous
	// volume. Who resolves a volume puts the path into Path.
	Source string `json:"source,omitempty"`
	Target string `json:"target"` // absolute and clean, in the view
	// Path is where a Volume is on the host; for whoever resolves names to fill in.
	Path     string `json:"path,omitempty"`
	ReadOnly bool   `json:"read_only,omitempty"`
	// Create: a missing directory of a Bind is made (-v does, --mount does not).
	Create bool `json:"create,omitempty"`
	// NoCopy: a new volume stays empty, instead of getting what the image has there.
	NoCopy bool `json:"no_copy,omitempty"`
	// Size is the limit of a Tmpfs in bytes, 0 for the kernel's own (half of the memory).
	Size int64 `json:"size,omitempty"`
	// Mode is that of the root of a Tmpfs; 0 stands for 1777.
	Mode uint32 `json:"mode,omitempty"`
	// UID and GID own the root of a Tmpfs.
	UID uint32 `json:"uid,omitempty"`
	GID uint32 `json:"gid,omitempty"`
	// Idle are options that were accepted and say nothing here (noexec of a tmpfs, say).
	Idle []string `json:"idle,omitempty"`
}

// String returns s in a form that [ParseMount] reads.
func (s *Spec) String() string {
	out := []string{"type=" + s.Kind.String()}
	if s.Source != "" {
		out = append(out, "source="+s.Source)
	}
	out = append(out, "target="+s.Target)
	if s.ReadOnly {
		out = append(out, "readonly")
	}
	if s.NoCopy {
		out = append(out, "volume-nocopy")
	}
	if s.Size != 0 {
		out = append(out, "tmpfs-size="+strconv.FormatInt(s.Size, 10))
	}
	if s.Mode != 0 {
		out = append(out, "tmpfs-mode="+strconv.FormatUint(uint64(s.Mode), 8))
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write(out)
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

// ErrPropagation is the reason why bind-propagation is refused.
var ErrPropagation = errors.New("bind-propagation is not possible: plyfs serves the source itself, it is no mount that others could be passed on through; what is mounted beneath the source before the start is seen (rprivate)")

// ParseVolume reads the value of -v as Docker does: [SOURCE:]TARGET[:OPTION,...]. A source
// with a slash, or "." and "..", is a path of the host, which is made if it is missing;
// without one it is the name of a volume; with no source the volume is anonymous.
func ParseVolume(v string) (Spec, error) {
	fail := func(format string, args ...any) (Spec, error) {
		return Spec{}, fmt.Errorf("volume %q: "+format, append([]any{v}, args...)...)
	}
	f := strings.Split(v, ":")
	var s Spec
	options := ""
	switch {
	case v == "":
		return fail("empty; want SOURCE:TARGET[:OPTIONS]")
	case len(f) == 1:
		s.Target = f[0]
	case len(f) == 2 && f[1] != "" && f[1][0] != '/' && path.IsAbs(f[0]) && areOptions(f[1]):
		s.Target, options = f[0], f[1]
	case len(f) <= 3:
		if f[0] == "" {
			return fail("the source is empty")
		}
		s.Source, s.Target = f[0], f[1]
		if len(f) == 3 {
			if options = f[2]; options == "" {
				return fail("a colon with no options after it")
			}
		}
	default:
		return fail("too many colons; want SOURCE:TARGET[:OPTIONS] (--mount takes paths with colons)")
	}
	s.Kind = Volume
	if isPath(s.Source) {
		s.Kind, s.Create = Bind, true
	} else if s.Source != "" {
		if err := naming.Check("volume", s.Source); err != nil {
			return fail("%w (a path of the host has a slash: ./%s)", err, s.Source)
		}
	}
	if options != "" {
		if err := s.volumeOptions(options); err != nil {
			return fail("%w", err)
		}
	}
	if err := s.setTarget(s.Target); err != nil {
		return fail("%w", err)
	}
	return s, nil
}

// ParseBind reads SOURCE:TARGET[:OPTION,...] where the source is a path of the host, with a
// slash in it or not, that must exist.
func ParseBind(v string) (Spec, error) {
	fail := func(format string, args ...any) (Spec, error) {
		return Spec{}, fmt.Errorf("bind %q: "+format, append([]any{v}, args...)...)
	}
	f := strings.Split(v, ":")
	if len(f) < 2 || len(f) > 3 || f[0] == "" {
		return fail("want SOURCE:TARGET[:ro]")
	}
	s := Spec{Kind: Bind, Source: f[0]}
	if len(f) == 3 {
		if err := s.volumeOptions(f[2]); err != nil {
			return fail("%w", err)
		}
	}
	if err := s.setTarget(f[1]); err != nil {
		return fail("%w", err)
	}
	return s, nil
}

func isPath(source string) bool {
	return strings.Contains(source, "/") || source == "." || source == ".."
}

// areOptions says whether every word is an option, to tell "/dir:ro" from "/src:dst".
func areOptions(words string) bool {
	for o := range strings.SplitSeq(words, ",") {
		var s Spec
		if err := s.volumeOption(o); err != nil && !errors.Is(err, ErrPropagation) {
			return false
		}
	}
	return true
}

// volumeOptions reads the words after the second colon of -v.
func (s *Spec) volumeOptions(words string) error {
	writable := false
	for o := range strings.SplitSeq(words, ",") {
		if err := s.volumeOption(o); err != nil {
			return err
		}
		writable = writable || o == "rw"
	}
	if s.ReadOnly && writable {
		return errors.New("both ro and rw")
	}
	return nil
}

// volumeOption reads one of them.
func (s *Spec) volumeOption(o string) error {
	switch o {
	case "rw":
	case "ro", "readonly":
		s.ReadOnly = true
	case "nocopy":
		if s.Kind == Bind && s.Source != "" {
			return errors.New("nocopy is for volumes: nothing is ever copied into a bind")
		}
		s.NoCopy = true
	case "z", "Z", "cached", "delegated", "consistent":
		s.Idle = append(s.Idle, o) // SELinux labels, and what Docker for the Mac had
	case "shared", "rshared", "slave", "rslave", "private", "unbindable", "runbindable":
		return ErrPropagation
	case "rprivate":
	default:
		return fmt.Errorf("unknown option %q (ro, rw, nocopy)", o)
	}
	return nil
}

// setTarget checks and cleans the target.
func (s *Spec) setTarget(t string) error {
	switch {
	case t == "":
		return errors.New("the target is empty")
	case !path.IsAbs(t):
		return fmt.Errorf("the target %q does not begin with a slash", t)
	case strings.ContainsRune(t, 0), strings.ContainsRune(s.Source, 0):
		return errors.New("a path with a NUL in it")
	}
	s.Target = path.Clean(t)
	return nil
}

// ParseTmpfs reads the value of --tmpfs: TARGET[:OPTION,...], with the options size, mode,
// uid and gid, and ro.
func ParseTmpfs(v string) (Spec, error) {
	fail := func(format string, args ...any) (Spec, error) {
		return Spec{}, fmt.Errorf("tmpfs %q: "+format, append([]any{v}, args...)...)
	}
	target, options, some := strings.Cut(v, ":")
	s := Spec{Kind: Tmpfs}
	if err := s.setTarget(target); err != nil {
		return fail("%w", err)
	}
	if !some {
		return s, nil
	}
	for o := range strings.SplitSeq(options, ",") {
		if err := s.tmpfsOption(o); err != nil {
			return fail("%w", err)
		}
	}
	return s, nil
}

func (s *Spec) tmpfsOption(o string) error {
	key, val, has := strings.Cut(o, "=")
	switch key {
	case "size", "mode", "uid", "gid":
		if !has || val == "" {
			return fmt.Errorf("%s needs a value", key)
		}
	default:
		if has {
			return fmt.Errorf("unknown option %q (size, mode, uid, gid, ro)", o)
		}
	}
	var err error
	switch key {
	case "size":
		s.Size, err = parseSize(val)
	case "mode":
		s.Mode, err = parseMode(val)
	case "uid":
		s.UID, err = parseID(val)
	case "gid":
		s.GID, err = parseID(val)
	case "rw":
	case "ro":
		s.ReadOnly = true
	case "exec", "noexec", "suid", "nosuid", "dev", "nodev", "atime", "noatime", "relatime", "strictatime", "sync", "async":
		s.Idle = append(s.Idle, o) // such flags are those of the whole mount
	default:
		return fmt.Errorf("unknown option %q (size, mode, uid, gid, ro)", o)
	}
	return err
}

// ParseMount reads the value of --mount as Docker does: a line of CSV with KEY=VALUE fields.
// The source of a bind must exist.
func ParseMount(v string) (Spec, error) {
	fail := func(format string, args ...any) (Spec, error) {
		return Spec{}, fmt.Errorf("mount %q: "+format, append([]any{v}, args...)...)
	}
	r := csv.NewReader(strings.NewReader(v))
	fields, err := r.Read()
	if err != nil {
		return fail("want type=bind|volume|tmpfs,source=…,target=… (%v)", err)
	}
	if _, err := r.Read(); err != io.EOF {
		return fail("more than one line")
	}
	s := Spec{Kind: Volume} // Docker's default
	target := ""
	var later []string // what belongs to one type only, looked at when the type is known
	for _, f := range fields {
		key, val, has := strings.Cut(f, "=")
		key = strings.ToLower(key)
		switch key {
		case "type":
			if err := s.setKind(val); err != nil {
				return fail("%w", err)
			}
		case "source", "src":
			s.Source = val
		case "target", "dst", "destination":
			target = val
		case "readonly", "ro":
			if s.ReadOnly, err = parseBool(val, has); err != nil {
				return fail("%s: %w", key, err)
			}
		case "consistency":
			s.Idle = append(s.Idle, f)
		default:
			later = append(later, f)
		}
	}
	for _, f := range later {
		if err := s.mountOption(f); err != nil {
			return fail("%w", err)
		}
	}
	if err := s.setTarget(target); err != nil {
		return fail("%w", err)
	}
	switch {
	case s.Kind == Bind && s.Source == "":
		return fail("a bind needs a source")
	case s.Kind == Tmpfs && s.Source != "":
		return fail("a tmpfs has no source")
	case s.Kind == Volume && s.Source != "":
		if err := naming.Check("volume", s.Source); err != nil && isPath(s.Source) {
			return fail("%w (a path of the host is for type=bind)", err)
		} else if err != nil {
			return fail("%w", err)
		}
	}
	return s, nil
}

func (s *Spec) setKind(v string) error {
	switch strings.ToLower(v) {
	case "bind":
		s.Kind = Bind
	case "volume":
		s.Kind = Volume
	case "tmpfs":
		s.Kind = Tmpfs
	default:
		return fmt.Errorf("unknown type %q (bind, volume, tmpfs)", v)
	}
	return nil
}

// mountOption reads a field of --mount that belongs to one type.
func (s *Spec) mountOption(f string) error {
	key, val, has := strings.Cut(f, "=")
	key = strings.ToLower(key)
	only := func(k Kind) error {
		if s.Kind != k {
			return fmt.Errorf("%s is for type=%s", key, k)
		}
		return nil
	}
	switch key {
	case "bind-propagation":
		if val == "rprivate" {
			return only(Bind)
		}
		return ErrPropagation
	case "bind-nonrecursive", "bind-recursive", "volume-driver", "volume-opt", "volume-label", "volume-subpath":
		return fmt.Errorf("%s is not supported", key)
	case "bind-create-src":
		on, err := parseBool(val, has)
		s.Create = on
		return errors.Join(err, only(Bind))
	case "volume-nocopy":
		on, err := parseBool(val, has)
		s.NoCopy = on
		return errors.Join(err, only(Volume))
	case "tmpfs-size":
		n, err := parseSize(val)
		s.Size = n
		return errors.Join(err, only(Tmpfs))
	case "tmpfs-mode":
		n, err := parseMode(val)
		s.Mode = n
		return errors.Join(err, only(Tmpfs))
	}
	return fmt.Errorf("unknown field %q", key)
}

func parseBool(v string, has bool) (bool, error) {
	if !has {
		return true, nil
	}
	switch strings.ToLower(v) {
	case "1", "true":
		return true, nil
	case "0", "false":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", v)
}

// parseSize reads a number of bytes with an optional b, k, m, g or t (powers of 1024; kb and
// KiB are the same).
func parseSize(v string) (int64, error) {
	shift := 0
	digits := strings.ToLower(v)
	digits = strings.TrimSuffix(digits, "b")
	digits = strings.TrimSuffix(digits, "i")
	if n := len(digits); n > 0 {
		if i := strings.IndexByte("kmgt", digits[n-1]); i >= 0 {
			shift = 10 * (i + 1)
			digits = digits[:n-1]
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is not a size (like 65536, 64k or 1g)", v)
	}
	return int64(n) << shift, nil
}

func parseMode(v string) (uint32, error) {
	n, err := strconv.ParseUint(v, 8, 32)
	if err != nil || n > 0o7777 {
		return 0, fmt.Errorf("%q is not a mode (like 1777)", v)
	}
	return uint32(n), nil
}

func parseID(v string) (uint32, error) {
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil || n == math.MaxUint32 {
		return 0, fmt.Errorf("%q is not a user or group number", v)
	}
	return uint32(n), nil
}
