package fusefs

import (
	"bytes"
	"strings"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// getxattr answers with the value, or with its size if the caller has no room
// (size 0). Virtual attributes are control.go's.
func (s *session[N]) getxattr(r *request, n N) unix.Errno {
	in := decode[fuse.GetXAttrIn](r)
	if in == nil {
		return unix.EIO
	}
	name, _, ok := r.name(int(unsafe.Sizeof(*in)))
	if !ok {
		return unix.EIO
	}
	if isControl(name) {
		return s.getControl(r, n, name, int(in.Size))
	}
	got, err := s.fs.Getxattr(n, name, r.out[:min(int(in.Size), len(r.out))])
	if err == unix.EOPNOTSUPP && s.neg.acl && strings.HasPrefix(name, "system.posix_acl_") {
		// A file of a filesystem without access lists has none. The kernel asks before it decides
		// about access, and takes another error for its decision (fuse_get_acl).
		return unix.ENODATA
	}
	return sized(r, int(in.Size), got, err)
}

func (s *session[N]) listxattr(r *request, n N) unix.Errno {
	in := decode[fuse.GetXAttrIn](r)
	if in == nil {
		return unix.EIO
	}
	got, err := s.fs.Listxattr(n, r.out[:min(xattrListMax, len(r.out))])
	if err == nil && r.hdr.Uid != 0 {
		got = hideTrusted(r.out[:got])
	}
	return sized(r, int(in.Size), got, err)
}

const xattrListMax = 64 << 10 // XATTR_LIST_MAX of linux/limits.h

// hideTrusted takes the names that only the privileged see out of a list, and returns what is left of its
// length (kernel: ovl_can_list). Other callers may have the capability too; they can still ask by name.
func hideTrusted(list []byte) int {
	left := list[:0]
	for len(list) > 0 {
		end := bytes.IndexByte(list, 0) + 1
		if !bytes.HasPrefix(list, []byte("trusted.")) {
			left = append(left, list[:end]...)
		}
		list = list[end:]
	}
	return len(left)
}

// sized finishes an answer that is a size if nothing was asked for, else the
// bytes themselves, which are in r.out.
func sized(r *request, asked, got int, err error) unix.Errno {
	switch {
	case err != nil:
		return errno(err)
	case asked == 0:
		answer[fuse.GetXAttrOut](r).Size = uint32(got)
		return 0
	case got > asked:
		return unix.ERANGE
	}
	r.n = got
	return 0
}

// setxattr decodes the long form of the struct, negotiated by SETXATTR_EXT.
func (s *session[N]) setxattr(r *request, n N) unix.Errno {
	in := decode[fuse.SetXAttrIn](r)
	if in == nil {
		return unix.EIO
	}
	size, kill := int(unsafe.Sizeof(*in)), in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0
	if !s.neg.setxattrExt {
		size, kill = size-8, false
	}
	name, next, ok := r.name(size)
	if !ok || len(r.msg)-next < int(in.Size) {
		return unix.EIO
	}
	val := r.msg[next : next+int(in.Size)]
	if isControl(name) {
		return s.setControl(r)
	}
	return errno(s.fs.Setxattr(&r.caller, n, name, val, int(in.Flags), kill))
}

func (s *session[N]) removexattr(r *request, n N) unix.Errno {
	name, _, ok := r.name(inHeaderSize)
	if !ok {
		return unix.EIO
	}
	if isControl(name) {
		return unix.EPERM
	}
	if name == "security.capability" && r.caller.UID != 0 {
		// Of a chown of nothing, perhaps, which is refused only in the request that follows.
		a := &r.w.attr
		if err := s.fs.Getattr(n, a); err != nil {
			return errno(err)
		}
		if !s.mayKill(&r.caller, a) && !r.caller.Capable(unix.CAP_SETFCAP) {
			return unix.EPERM
		}
	}
	return errno(s.fs.Removexattr(&r.caller, n, name))
}
