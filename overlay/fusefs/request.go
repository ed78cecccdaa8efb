package fusefs

import (
	"bytes"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	inHeaderSize  = int(unsafe.Sizeof(fuse.InHeader{}))
	outHeaderSize = int(unsafe.Sizeof(fuse.OutHeader{}))
	writeInSize   = int(unsafe.Sizeof(fuse.WriteIn{}))
)

// request is one message of the kernel and the place for its answer. It belongs to
// the worker that read it and is used again for the next: nothing may keep a
// slice of it after the answer was written.
type request struct {
	msg []byte         // the whole message, 8-byte aligned
	hdr *fuse.InHeader // msg, seen as its header
	out []byte         // room for the answer's payload, page aligned
	n   int            // bytes of out to send

	silent bool   // no answer wanted (FORGET, INTERRUPT that hit)
	entry  uint64 // node whose reference came into being with this answer

	caller Caller
	w      *worker
}

// begin prepares r for the message in msg.
func (r *request) begin(msg []byte) {
	r.msg = msg
	r.hdr = (*fuse.InHeader)(unsafe.Pointer(&msg[0]))
	r.n = 0
	r.silent = false
	r.entry = 0
	r.caller.UID = r.hdr.Uid
	r.caller.GID = r.hdr.Gid
	r.caller.PID = r.hdr.Pid
	r.caller.Umask = 0
}

// decode sees r's message as a T, one of go-fuse's request structs, which all begin
// with the header. It returns nil if the message is too short for one.
func decode[T any](r *request) *T {
	var t T
	if len(r.msg) < int(unsafe.Sizeof(t)) {
		return nil
	}
	return (*T)(unsafe.Pointer(&r.msg[0]))
}

// answer makes room for a T at the start of the payload, zeroed, and counts it as
// the answer.
func answer[T any](r *request) *T {
	p := (*T)(unsafe.Pointer(&r.out[0]))
	var zero T
	*p = zero
	r.n = int(unsafe.Sizeof(zero))
	return p
}

// name returns the NUL-terminated string at offset off of the message and the
// offset after it.
func (r *request) name(off int) (string, int, bool) {
	b, next, ok := r.nameBytes(off)
	return string(b), next, ok
}

func (r *request) nameBytes(off int) ([]byte, int, bool) {
	if off > len(r.msg) {
		return nil, 0, false
	}
	b := r.msg[off:]
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return nil, 0, false
	}
	return b[:i], off + i + 1, true
}

// checkName says whether a name may reach the union. The kernel sends longer ones than
// any filesystem has; the rest a daemon should not depend on.
func checkName(b []byte) unix.Errno {
	switch {
	case len(b) > unix.NAME_MAX:
		return unix.ENAMETOOLONG
	case len(b) == 0, string(b) == ".", string(b) == "..", bytes.IndexByte(b, '/') >= 0:
		return unix.EINVAL
	}
	return 0
}

// child returns the file name at offset off of the message, and the offset after it.
func (r *request) child(off int) (string, int, unix.Errno) {
	b, next, ok := r.nameBytes(off)
	if !ok {
		return "", 0, unix.EINVAL
	}
	if e := checkName(b); e != 0 {
		return "", 0, e
	}
	return string(b), next, 0
}

// frame fills in the header before the payload and returns the bytes to
// write. buf is the worker's answer buffer, whose payload starts at pageSize.
func (r *request) frame(buf []byte, e unix.Errno) []byte {
	if e != 0 {
		r.n = 0
	}
	start := pageSize - outHeaderSize
	h := (*fuse.OutHeader)(unsafe.Pointer(&buf[start]))
	h.Length = uint32(outHeaderSize + r.n)
	h.Status = -int32(e)
	h.Unique = r.hdr.Unique
	return buf[start : pageSize+r.n]
}
