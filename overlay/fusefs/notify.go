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

// invalInode makes the kernel drop the node's attributes, and its cached pages in
// [off, off+length), or to the end if length is 0 or less. A negative off drops
// the attributes only.
func (c *conn) invalInode(node uint64, off, length int64) error {
	o := fuse.NotifyInvalInodeOut{Ino: node, Off: off, Length: length}
	return gone("invalidate inode", c.notify(fuse.NOTIFY_INVAL_INODE, bytesOf(&o)))
}
