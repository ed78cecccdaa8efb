package overlay

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

const (
	aclPrefix  = "system.posix_acl_"
	aclAccess  = aclPrefix + "access"
	aclDefault = aclPrefix + "default"
)

// An access list as an attribute (linux/posix_acl_xattr.h): a header, and entries of tag, permissions and id.
const (
	aclHeader   = 4
	aclEntry    = 8
	aclOwner    = 1
	aclUser     = 2
	aclOwnGroup = 4
	aclGroup    = 8
	aclMask     = 16
	aclOthers   = 32
)

// mapsACL says whether the ids in an attribute are not those of the view.
func (fs *FS) mapsACL(name string) bool {
	return (fs.cfg.UIDMap != nil || fs.cfg.GIDMap != nil) && strings.HasPrefix(name, aclPrefix)
}

// getACL is Getxattr for an access list with other ids in the layer than in the view. An entry without a
// mapping is left out: nobody in the view is meant by it.
func (fs *FS) getACL(p pin, name string, buf []byte) (int, error) {
	val, err := layer.GetxattrAll(p.fd, p.name, name)
	if err != nil {
		return 0, err
	}
	shown, _ := mapACL(val, fromHost, fs.cfg.UIDMap, fs.cfg.GIDMap)
	switch {
	case len(buf) == 0:
		return len(shown), nil
	case len(shown) > len(buf):
		return 0, unix.ERANGE
	}
	return copy(buf, shown), nil
}

// storedACL returns an access list of the view as a layer has it; EINVAL if somebody in it has no mapping.
func (fs *FS) storedACL(val []byte) ([]byte, error) {
	stored, all := mapACL(val, toHost, fs.cfg.UIDMap, fs.cfg.GIDMap)
	if !all {
		return nil, unix.EINVAL
	}
	return stored, nil
}

// mapACL replaces ids; all is false if entries without a mapping were left out. What is no list is returned as it is.
func mapACL(val []byte, to func([]IDRange, uint32) (uint32, bool), uids, gids []IDRange) (out []byte, all bool) {
	if len(val) < aclHeader || (len(val)-aclHeader)%aclEntry != 0 {
		return val, true
	}
	out, all = append(out, val[:aclHeader]...), true
	for e := val[aclHeader:]; len(e) > 0; e = e[aclEntry:] {
		ids := uids
		switch binary.LittleEndian.Uint16(e) {
		case aclGroup:
			ids = gids
		case aclUser:
		default:
			out = append(out, e[:aclEntry]...)
			continue
		}
		id, ok := to(ids, binary.LittleEndian.Uint32(e[4:]))
		if !ok {
			all = false
			continue
		}
		out = binary.LittleEndian.AppendUint32(append(out, e[:4]...), id)
	}
	return out, all
}

// Owner and mode in an attribute, and an access list of the file itself, are kept in step here, as the kernel does
// for those of a file: the list's entries for owner, others, and the group or, if there is one, the mask are the mode.

// modeEntries calls f for those entries of an access list, each with its place in the mode. What is no list has none.
func modeEntries(list []byte, f func(entry []byte, shift int)) {
	if len(list) < aclHeader || (len(list)-aclHeader)%aclEntry != 0 {
		return
	}
	var group []byte
	for e := list[aclHeader:]; len(e) > 0; e = e[aclEntry:] {
		switch tag := binary.LittleEndian.Uint16(e); {
		case tag == aclOwner:
			f(e, 6)
		case tag == aclMask, tag == aclOwnGroup && group == nil:
			group = e
		case tag == aclOthers:
			f(e, 0)
		}
	}
	if group != nil {
		f(group, 3)
	}
}

// modeOfACL returns the permissions of mode as a new access list has them.
func modeOfACL(list []byte, mode uint32) uint32 {
	modeEntries(list, func(e []byte, shift int) {
		mode = mode&^(7<<shift) | uint32(e[2]&7)<<shift
	})
	return mode
}

// overrideByACL gives the mode in the attribute what a new access list says.
func (fs *FS) overrideByACL(p pin, list []byte, killSGID bool) error {
	var st Attr
	if err := layer.Stat(p.fd, p.name, &st); err != nil {
		return err
	}
	fs.overriddenAt(fs.upper, p.fd, p.name, &st)
	mode := modeOfACL(list, uint32(st.Mode)&0o7777)
	if killSGID {
		mode &^= unix.S_ISGID
	}
	return fs.override(p.fd, p.name, &st, &SetAttr{Mask: SetMode, Mode: mode})
}

// aclByOverride gives the access list, if there is one, what chmod(2) says. This process goes on reading and writing
// the file, as its owner if not as root.
func (fs *FS) aclByOverride(p pin, mode uint32) error {
	list, err := layer.GetxattrAll(p.fd, p.name, aclAccess)
	if err != nil {
		return nil // none, or no such thing here
	}
	if !fs.self.privileged {
		mode |= 0o600
	}
	modeEntries(list, func(e []byte, shift int) { e[2] = byte(mode>>shift) & 7 })
	return layer.Setxattr(p.fd, p.name, aclAccess, list, 0)
}
