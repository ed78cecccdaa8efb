package fusefs

import (
	"os"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// notify sends a message nobody asked for: unique 0, its code in place of an
// errno. parts follow the header.
func (c *conn) notify(code int32, parts ...[]byte) error {
	h := fuse.OutHeader{Status: -code} // go-fuse has the codes below zero, the kernel wants them above
	iov := make([][]byte, 1, 1+len(parts))
	iov[0] = unsafe.Slice((*byte)(unsafe.Pointer(&h)), outHeaderSize)
	size := outHeaderSize
	for _, p := range parts {
		iov = append(iov, p)
		size += len(p)
	}
	h.Length = uint32(size)
	_, err := unix.Writev(c.fd, iov)
	return err
}

func bytesOf[T any](p *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(p)), unsafe.Sizeof(*p))
}

// gone: what the kernel does not have cached needs no invalidation.
func gone(what string, err error) error {
	if err == nil || err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	return os.NewSyscallError(what, err)
}

// InvalInode makes the kernel drop the node's attributes, and its cached pages in
// [off, off+length), or to the end if length is 0 or less. A negative off drops
// the attributes only.
func (v *Server) InvalInode(node uint64, off, length int64) error {
	return v.conn.invalInode(node, off, length)
}

func (c *conn) invalInode(node uint64, off, length int64) error {
	o := fuse.NotifyInvalInodeOut{Ino: node, Off: off, Length: length}
	return gone("invalidate inode", c.notify(fuse.NOTIFY_INVAL_INODE, bytesOf(&o)))
}

// InvalEntry makes the kernel forget what it knows of a name, also that it is
// missing.
func (v *Server) InvalEntry(parent uint64, name string) error {
	o := fuse.NotifyInvalEntryOut{Parent: parent, NameLen: uint32(len(name))}
	return gone("invalidate entry", v.conn.notify(fuse.NOTIFY_INVAL_ENTRY, bytesOf(&o), append([]byte(name), 0)))
}

// ExpireEntry makes the kernel ask again for a name when it is next used, without
// disturbing who has it open or mounted upon.
func (v *Server) ExpireEntry(parent uint64, name string) error {
	o := fuse.NotifyInvalEntryOut{Parent: parent, NameLen: uint32(len(name)), Flags: fuse.EXPIRE_ONLY}
	return gone("expire entry", v.conn.notify(fuse.NOTIFY_INVAL_ENTRY, bytesOf(&o), append([]byte(name), 0)))
}

// DeleteEntry tells the kernel that a name was removed behind its back; watchers
// (inotify) see a deletion.
func (v *Server) DeleteEntry(parent, child uint64, name string) error {
	o := fuse.NotifyInvalDeleteOut{Parent: parent, Child: child, NameLen: uint32(len(name))}
	return gone("delete entry", v.conn.notify(fuse.NOTIFY_DELETE, bytesOf(&o), append([]byte(name), 0)))
}

// Prune asks the kernel to forget nodes nobody uses (Linux 6.18; EINVAL before).
func (v *Server) Prune(nodes ...uint64) error {
	if len(nodes) == 0 {
		return nil
	}
	o := fuse.NotifyPruneOut{Count: uint32(len(nodes))}
	ids := unsafe.Slice((*byte)(unsafe.Pointer(&nodes[0])), 8*len(nodes))
	return gone("prune", v.conn.notify(fuse.NOTIFY_PRUNE, bytesOf(&o), ids))
}
