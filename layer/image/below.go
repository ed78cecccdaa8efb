package image

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// Below looks a directory up in a stack of layers, topmost first, the way a union of them
// would show it. It is for [UnpackOptions].
func Below(dirs []string, ns whiteout.Namespace) func(p string) (Meta, bool) {
	return func(p string) (Meta, bool) {
		for _, dir := range dirs {
			m, found, last := lookup(dir, p, ns)
			if found || last {
				return m, found
			}
		}
		return Meta{}, false
	}
}

// lookup looks in one layer; last says that nothing below it is seen at that path.
func lookup(dir, p string, ns whiteout.Namespace) (m Meta, found, last bool) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return m, false, false
	}
	defer func() { unix.Close(fd) }()
	for elem := range strings.SplitSeq(path.Clean(p), "/") {
		var st unix.Statx_t
		if layer.Stat(fd, elem, &st) != nil {
			return m, false, last
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return m, false, true // something else, or a whiteout
		}
		next, err := layer.Open(fd, elem, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return m, false, true
		}
		unix.Close(fd)
		fd = next
		last = last || isOpaque(fd, "", ns)
	}
	var st unix.Statx_t
	if layer.Stat(fd, "", &st) != nil {
		return m, false, true
	}
	m = Meta{Mode: uint32(st.Mode) & 0o7777, UID: int(st.Uid), GID: int(st.Gid), Mtime: st.Mtime.Sec*1e9 + int64(st.Mtime.Nsec)}
	list, _ := layer.Listxattr(fd, "")
	for _, attr := range list {
		key, ok := plainAttr(attr)
		if !ok || attrName(key, ns) == "" {
			continue
		}
		if v, err := layer.GetxattrAll(fd, "", attr); err == nil {
			if m.Xattrs == nil {
				m.Xattrs = Keys[[]byte]{}
			}
			m.Xattrs[key] = v
		}
	}
	return m, true, true
}
