package whiteout

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Metacopy is the mark of a file whose data is in a lower layer (kernel: struct
// ovl_metacopy). The zero value is the plain mark; Digest is the fs-verity digest the
// data must have.
type Metacopy struct {
	Flags, Algo uint8
	Digest      []byte
}

const metacopyHeader = 4

var errMetacopy = errors.New("bad metacopy mark")

// ParseMetacopy reads the mark: empty, or a version 0 record.
func ParseMetacopy(v []byte) (Metacopy, error) {
	if len(v) == 0 {
		return Metacopy{}, nil
	}
	if len(v) < metacopyHeader || len(v) > metacopyHeader+64 || v[0] != 0 || int(v[1]) != len(v) || v[2] != 0 {
		return Metacopy{}, errMetacopy
	}
	m := Metacopy{Flags: v[2], Algo: v[3]}
	if len(v) > metacopyHeader {
		m.Digest = append([]byte(nil), v[metacopyHeader:]...)
	}
	return m, nil
}

// Encode is the inverse of ParseMetacopy.
func (m Metacopy) Encode() []byte {
	if m.Algo == 0 && len(m.Digest) == 0 {
		return nil
	}
	v := []byte{0, byte(metacopyHeader + len(m.Digest)), m.Flags, m.Algo}
	return append(v, m.Digest...)
}

// Nlink is the link count of an indexed inode, as a difference from that of its upper
// or of its lower inode (kernel: ovl_get_nlink): "U+1", "L-2".
type Nlink struct {
	FromUpper bool
	Diff      int
}

var errNlink = errors.New("bad nlink mark")

// ParseNlink reads the mark.
func ParseNlink(v []byte) (Nlink, error) {
	if len(v) < 3 || len(v) > 13 || v[0] != 'U' && v[0] != 'L' || v[1] != '+' && v[1] != '-' {
		return Nlink{}, errNlink
	}
	if v[2] < '0' || v[2] > '9' {
		return Nlink{}, errNlink
	}
	d, err := strconv.ParseInt(string(v[1:]), 10, 32)
	if err != nil {
		return Nlink{}, errNlink
	}
	return Nlink{FromUpper: v[0] == 'U', Diff: int(d)}, nil
}

// Encode is the inverse of ParseNlink.
func (n Nlink) Encode() []byte {
	c := byte('L')
	if n.FromUpper {
		c = 'U'
	}
	return fmt.Appendf(nil, "%c%+d", c, n.Diff)
}

// ProtAttr is the mark of a file that the view shows as immutable or append-only
// (kernel: ovl_check_protattr).
type ProtAttr struct{ Append, Immutable bool }

// ParseProtAttr reads the mark; unknown letters end it, as in the kernel.
func ParseProtAttr(v []byte) ProtAttr {
	var p ProtAttr
	for _, c := range v {
		switch c {
		case 'a':
			p.Append = true
		case 'i':
			p.Immutable = true
		default:
			return p
		}
	}
	return p
}

// Encode is the inverse of ParseProtAttr.
func (p ProtAttr) Encode() []byte {
	var v []byte
	if p.Append {
		v = append(v, 'a')
	}
	if p.Immutable {
		v = append(v, 'i')
	}
	return v
}

// The attributes of an OverrideStat, as fuse-overlayfs and containers/storage name them.
const (
	OverrideStatPrivileged = "security.fuseoverlayfs.override_stat"
	OverrideStatUser       = "user.containers.override_stat"
	OverrideStatOld        = "user.fuseoverlayfs.override_stat" // fuse-overlayfs before 1.14
)

// OverrideStat is the owner, mode and type that containers/storage keeps in an attribute
// where files cannot have them: "uid:gid:mode[:type]", mode in octal. fuse-overlayfs
// writes the type bits into the mode; they are not kept.
type OverrideStat struct {
	UID, GID, Mode uint32
	Type           string // as it is written, see Special; "" for none
}

var errOverride = errors.New("bad override_stat attribute")

// ParseOverrideStat reads the attribute.
func ParseOverrideStat(v []byte) (OverrideStat, error) {
	f := strings.SplitN(string(v), ":", 4)
	if len(f) < 3 {
		return OverrideStat{}, errOverride
	}
	uid, err1 := strconv.ParseUint(f[0], 10, 32)
	gid, err2 := strconv.ParseUint(f[1], 10, 32)
	mode, err3 := strconv.ParseUint(f[2], 8, 16)
	if err1 != nil || err2 != nil || err3 != nil {
		return OverrideStat{}, errOverride
	}
	o := OverrideStat{UID: uint32(uid), GID: uint32(gid), Mode: uint32(mode) & 0o7777}
	if len(f) == 4 {
		o.Type = f[3]
		_, _, _, special := o.Special()
		if o.Type == "" || len(o.Type) > 64 || strings.Contains(o.Type, "\x00") || strings.Contains(o.Type, ":") && !special {
			return OverrideStat{}, errOverride
		}
	}
	return o, nil
}

// Encode is the inverse of ParseOverrideStat.
func (o OverrideStat) Encode() []byte {
	v := fmt.Appendf(nil, "%d:%d:0%o", o.UID, o.GID, o.Mode)
	if o.Type != "" {
		v = append(append(v, ':'), o.Type...)
	}
	return v
}

// Special returns what the object is to be if that is neither file, directory nor symbolic link: the type
// bits, and the numbers of a device. containers/storage writes pipe, socket, block-8-1 and char-1-3;
// block8:1, block:8:1 and the like are read, too.
func (o OverrideStat) Special() (typ, major, minor uint32, ok bool) {
	switch o.Type {
	case "pipe":
		return typeFIFO, 0, 0, true
	case "socket":
		return typeSocket, 0, 0, true
	}
	typ = typeBlock
	numbers, ok := strings.CutPrefix(o.Type, "block")
	if !ok {
		typ = typeChar
		if numbers, ok = strings.CutPrefix(o.Type, "char"); !ok {
			return 0, 0, 0, false
		}
	}
	if numbers != "" && (numbers[0] == '-' || numbers[0] == ':') {
		numbers = numbers[1:]
	}
	i := strings.IndexAny(numbers, "-:")
	if i < 0 {
		return 0, 0, 0, false
	}
	maj, err1 := strconv.ParseUint(numbers[:i], 10, 12) // the widths of a dev_t in stat(2)
	mnr, err2 := strconv.ParseUint(numbers[i+1:], 10, 20)
	if err1 != nil || err2 != nil {
		return 0, 0, 0, false
	}
	return typ, uint32(maj), uint32(mnr), true
}
