package fusefs

import (
	"math"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// read fills the answer buffer itself: its payload is page aligned, so that a
// union may read into it with O_DIRECT.
func (s *session[N]) read(r *request, n N) unix.Errno {
	in := decode[fuse.ReadIn](r)
	if in == nil || int64(in.Offset) < 0 {
		return unix.EINVAL
	}
	if in.Offset == 0 && s.opt.Mode == Cached && s.shares == nil {
		s.wasRead(r)
	}
	size := min(int(in.Size), len(r.out))
	readAt := s.fs.ReadAt
	if q, ok := s.fs.(Quiet[N]); ok && in.Flags&unix.O_NOATIME != 0 {
		readAt = q.ReadQuiet
	} else if x, ok := s.fs.(Splicer[N]); ok && size >= spliceFrom && s.splice(r, x, n, size, int64(in.Offset)) {
		r.silent = true
		return 0
	}
	got, err := readAt(n, r.out[:size], int64(in.Offset))
	if err != nil {
		return errno(err)
	}
	r.n = got
	s.stat.bytesRead.Add(uint64(got))
	return 0
}

// wasRead makes the kernel ask for the listing of a directory again, with attributes, when it has had most
// of its files read: one request then, in place of one for each file.
func (s *session[N]) wasRead(r *request) {
	dir := s.listings.read(r.hdr.Pid)
	if dir == 0 || s.conn == nil {
		return
	}
	s.stale.add(dir)
	if err := s.conn.invalInode(dir, 0, 0); err != nil {
		s.opt.logf("%v", err)
	}
}

func (s *session[N]) write(r *request, n N) unix.Errno {
	in := decode[fuse.WriteIn](r)
	if in == nil || int64(in.Offset) < 0 {
		return unix.EINVAL
	}
	data := r.msg[writeInSize:]
	if len(data) < int(in.Size) {
		return unix.EIO
	}
	data = data[:in.Size]
	kill := in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0
	if in.WriteFlags&fuse.WRITE_CACHE == 0 { // else nobody knows through which descriptor
		if e := s.mayOpen(n, in.Flags); e != 0 {
			return e
		}
	}
	var put int
	var err error
	if s.shares != nil {
		put, err = s.shares.WriteFile(&r.caller, n, data, int64(in.Offset), in.Flags, kill)
	} else {
		put, err = s.fs.WriteAt(&r.caller, n, data, int64(in.Offset), kill)
	}
	if err != nil && put == 0 {
		e := errno(err)
		if e == unix.EPERM && in.WriteFlags&fuse.WRITE_CACHE != 0 {
			// It may never be written: the pages must not go on showing it, nor keep others from
			// being written that an append adds to them.
			node, off, size := r.hdr.NodeId, int64(in.Offset), int64(in.Size)
			s.conn.afterwards(func() error { return s.conn.invalInode(node, off, size) })
		}
		return e
	}
	s.stat.bytesWritten.Add(uint64(put))
	answer[fuse.WriteOut](r).Size = uint32(put)
	return 0
}

const fsyncDatasync = 1 // FUSE_FSYNC_FDATASYNC

func (s *session[N]) fsync(r *request, n N) unix.Errno {
	in := decode[fuse.FsyncIn](r)
	if in == nil {
		return unix.EIO
	}
	return errno(s.fs.Fsync(n, in.FsyncFlags&fsyncDatasync != 0))
}

func (s *session[N]) fsyncdir(_ *request, n N) unix.Errno {
	return errno(s.fs.FsyncDir(n))
}

func (s *session[N]) fallocate(r *request, n N) unix.Errno {
	in := decode[fuse.FallocateIn](r)
	if in == nil || int64(in.Offset) < 0 || int64(in.Length) < 0 {
		return unix.EINVAL
	}
	err := s.fs.Fallocate(&r.caller, n, in.Mode, int64(in.Offset), int64(in.Length))
	if err != nil {
		// A mode that the upper does not know is found out after the copy-up, which may have changed the number
		// (index=off). The kernel keeps the attributes when the call fails; for a negative offset it takes no lock.
		_ = s.conn.invalInode(r.hdr.NodeId, -1, 0)
	}
	return errno(err)
}

func (s *session[N]) lseek(r *request, n N) unix.Errno {
	in := decode[fuse.LseekIn](r) // a negative offset is the union's to refuse: ENXIO, not EINVAL
	if in == nil {
		return unix.EINVAL
	}
	// The kernel does not write dirty pages back before it asks. Those of a mapping are not
	// known here, with gathered writes no others are either. Dropping the pages writes them; the
	// caller holds the inode's lock in the kernel, which that does not take.
	if err := s.conn.invalInode(r.hdr.NodeId, 0, 0); err != nil {
		return errno(err)
	}
	off, err := s.fs.Seek(n, int64(in.Offset), int(in.Whence))
	if err != nil {
		return errno(err)
	}
	answer[fuse.LseekOut](r).Offset = uint64(off)
	return 0
}

// copyRange answers with a fuse_write_out, whose size has 32 bits; a shorter
// copy than asked is allowed.
func (s *session[N]) copyRange(r *request, n N) unix.Errno {
	done, e := s.copy(r, n, math.MaxUint32&^(pageSize-1))
	if e == 0 {
		answer[fuse.WriteOut](r).Size = uint32(done)
	}
	return e
}

func (s *session[N]) copyRange64(r *request, n N) unix.Errno {
	done, e := s.copy(r, n, math.MaxInt64)
	if e == 0 {
		answer[fuse.CopyFileRangeOut](r).BytesCopied = uint64(done)
	}
	return e
}

func (s *session[N]) copy(r *request, n N, limit uint64) (int64, unix.Errno) {
	in := decode[fuse.CopyFileRangeIn](r)
	if in == nil || int64(in.OffIn) < 0 || int64(in.OffOut) < 0 || in.Flags != 0 {
		return 0, unix.EINVAL
	}
	var none N
	out := s.fs.Node(in.NodeIdOut)
	if out == none {
		return 0, unix.ESTALE
	}
	done, err := s.fs.CopyRange(&r.caller, n, int64(in.OffIn), out, int64(in.OffOut), int64(min(in.Len, limit)))
	return done, errno(err)
}

// ioctl passes what the kernel prepared: the payload's size comes from the
// command's own encoding (restricted ioctls), FS_IOC_* among them.
func (s *session[N]) ioctl(r *request, n N) unix.Errno {
	in := decode[fuse.IoctlIn](r)
	if in == nil {
		return unix.EIO
	}
	data := r.msg[unsafe.Sizeof(*in):]
	if len(data) < int(in.InSize) || in.Flags&fuse.IOCTL_UNRESTRICTED != 0 {
		return unix.EIO
	}
	head := int(unsafe.Sizeof(fuse.IoctlOut{}))
	if int(in.OutSize) > len(r.out)-head {
		return unix.EINVAL
	}
	payload := r.out[head : head+int(in.OutSize)]
	clear(payload)
	res, err := s.fs.Ioctl(&r.caller, n, in.Cmd, data[:in.InSize], payload)
	if err != nil {
		return errno(err)
	}
	answer[fuse.IoctlOut](r).Result = res
	r.n += len(payload)
	return 0
}
