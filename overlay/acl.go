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
	aclHeader = 4
	aclEntry  = 8
	aclUser   = 2
	aclGroup  = 8
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
