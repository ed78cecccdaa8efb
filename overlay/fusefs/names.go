package fusefs

import (
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// lookup finds one name. A name that is not there is an answer too (node id 0
// with a validity), so that the kernel remembers it.
func (s *session[N]) lookup(r *request, dir N) unix.Errno {
	b, _, ok := r.nameBytes(inHeaderSize)
	if !ok {
		return unix.EIO
	}
	if e := checkName(b); e == unix.ENAMETOOLONG {
		return e
	} else if e != 0 {
		return unix.ESTALE // "." and "..": EXPORT_SUPPORT is not negotiated
	}
	a := &r.w.attr
	n, err := s.fs.Lookup(&r.caller, dir, string(b), a)
	if err != nil {
		e := errno(err)
		if e == unix.ENOENT && s.negValid != (validity{}) && s.keepsNames(dir) {
			o := answer[fuse.EntryOut](r)
			o.EntryValid = s.negValid.sec
			o.EntryValidNsec = s.negValid.nsec
			return 0
		}
		return e
	}
	s.listings.looked(r.hdr.Pid, r.hdr.NodeId, uint32(a.Mode))
	return s.entry(r, n, a)
}

// keepsNames says whether the kernel may remember which names a directory does not have.
func (s *session[N]) keepsNames(dir N) bool {
	if s.shares == nil {
		return true
	}
	_, rest := s.shares.Keep(dir)
	return rest
}

func (s *session[N]) forget(r *request, _ N) unix.Errno {
	r.silent = true
	if in := decode[fuse.ForgetIn](r); in != nil {
		s.fs.Forget(in.NodeId, in.Nlookup)
		s.open.forgot(in.NodeId)
		s.memory.forgot(1)
	}
	return 0
}

func (s *session[N]) batchForget(r *request, _ N) unix.Errno {
	r.silent = true
	type batch struct {
		fuse.InHeader
		count, _ uint32
	}
	type one struct{ node, count uint64 }
	in := decode[batch](r)
	if in == nil {
		return 0
	}
	rest := r.msg[unsafe.Sizeof(*in):]
	size := int(unsafe.Sizeof(one{}))
	for i := 0; i < int(in.count) && len(rest) >= size; i++ {
		o := (*one)(unsafe.Pointer(&rest[0]))
		s.fs.Forget(o.node, o.count)
		s.open.forgot(o.node)
		rest = rest[size:]
	}
	s.memory.forgot(int(in.count))
	return 0
}

// mknod makes a file of any type but directory and symbolic link.
func (s *session[N]) mknod(r *request, dir N) unix.Errno {
	in := decode[fuse.MknodIn](r)
	if in == nil {
		return unix.EIO
	}
	return s.make(r, int(unsafe.Sizeof(*in)), in.Umask, func(name string, a *Attr) (N, error) {
		return s.fs.Mknod(&r.caller, dir, name, in.Mode, in.Rdev, a)
	})
}

// make answers r with what create made of the name at off.
func (s *session[N]) make(r *request, off int, umask uint32, create func(name string, a *Attr) (N, error)) unix.Errno {
	name, _, e := r.child(off)
	if e != 0 {
		return e
	}
	r.caller.Umask = umask
	a := &r.w.attr
	n, err := create(name, a)
	if err != nil {
		return errno(err)
	}
	return s.entry(r, n, a)
}

// create makes a regular file and opens it. The kernel forgets the handle: with OPEN answered
// ENOSYS it sends no RELEASE either.
//
// A file made for writing only is written past the page cache: a program that fills a new file
// and closes it gains nothing from the cache, and the kernel does not ask for the file's
// capabilities (a GETXATTR) before the first write. Every other open of the file, earlier or
// later, goes through the cache, which the kernel keeps coherent with such writes.
func (s *session[N]) create(r *request, dir N) unix.Errno {
	_, flags, o, e := s.makeFile(r, dir)
	if e != 0 {
		return e
	}
	o.OpenFlags = fuse.FOPEN_KEEP_CACHE
	if flags&unix.O_ACCMODE == unix.O_WRONLY && !s.neg.writeback {
		o.OpenFlags = fuse.FOPEN_DIRECT_IO
	}
	return 0
}

// makeFile serves the first half of CREATE: it returns the new file and the flags to open it
// with. o is to be filled in.
func (s *session[N]) makeFile(r *request, dir N) (n N, flags uint32, o *fuse.OpenOut, e unix.Errno) {
	in := decode[fuse.CreateIn](r)
	if in == nil {
		return n, 0, nil, unix.EIO
	}
	name, _, e := r.child(int(unsafe.Sizeof(*in)))
	if e != 0 {
		return n, 0, nil, e
	}
	r.caller.Umask = in.Umask
	a := &r.w.attr
	n, err := s.fs.Mknod(&r.caller, dir, name, in.Mode, 0, a)
	if err != nil {
		if e = errno(err); e == unix.EEXIST && in.Flags&unix.O_EXCL == 0 {
			e = unix.ESTALE // somebody was faster: the kernel looks the name up again
		}
		return n, 0, nil, e
	}
	out := answer[fuse.CreateOut](r)
	r.entry = n.ID()
	s.fillEntry(&out.EntryOut, n, a)
	return n, in.Flags, &out.OpenOut, 0
}

func (s *session[N]) mkdir(r *request, dir N) unix.Errno {
	in := decode[fuse.MkdirIn](r)
	if in == nil {
		return unix.EIO
	}
	return s.make(r, int(unsafe.Sizeof(*in)), in.Umask, func(name string, a *Attr) (N, error) {
		return s.fs.Mkdir(&r.caller, dir, name, in.Mode, a)
	})
}

func (s *session[N]) symlink(r *request, dir N) unix.Errno {
	name, next, e := r.child(inHeaderSize)
	if e != 0 {
		return e
	}
	target, _, ok := r.name(next)
	if !ok {
		return unix.EINVAL
	}
	a := &r.w.attr
	n, err := s.fs.Symlink(&r.caller, dir, name, target, a)
	if err != nil {
		return errno(err)
	}
	return s.entry(r, n, a)
}

func (s *session[N]) link(r *request, dir N) unix.Errno {
	in := decode[fuse.LinkIn](r)
	if in == nil {
		return unix.EIO
	}
	name, _, e := r.child(int(unsafe.Sizeof(*in)))
	if e != 0 {
		return e
	}
	var none N
	n := s.fs.Node(in.Oldnodeid)
	if n == none {
		return unix.ESTALE
	}
	renewed := false
	if s.open != nil {
		if renewed, e = s.open.beforeLink(r, n); e != 0 {
			return e
		}
	}
	a := &r.w.attr
	if err := s.fs.Link(&r.caller, n, dir, name, a); err != nil {
		return errno(err)
	}
	if renewed {
		return s.open.afterLink(r, n, a)
	}
	return s.entry(r, n, a)
}

func (s *session[N]) readlink(r *request, n N) unix.Errno {
	target, err := s.fs.Readlink(n)
	if err != nil {
		return errno(err)
	}
	r.n = copy(r.out, target)
	return 0
}

func (s *session[N]) unlink(r *request, dir N) unix.Errno {
	name, _, e := r.child(inHeaderSize)
	if e != 0 {
		return e
	}
	return errno(s.fs.Unlink(&r.caller, dir, name))
}

func (s *session[N]) rmdir(r *request, dir N) unix.Errno {
	name, _, e := r.child(inHeaderSize)
	if e != 0 {
		return e
	}
	return errno(s.fs.Rmdir(&r.caller, dir, name))
}

// rename serves RENAME, whose struct has the target directory only.
func (s *session[N]) rename(r *request, dir N) unix.Errno {
	type renameIn struct {
		fuse.InHeader
		newdir uint64
	}
	in := decode[renameIn](r)
	if in == nil {
		return unix.EIO
	}
	return s.renameTo(r, dir, in.newdir, 0, int(unsafe.Sizeof(*in)))
}

func (s *session[N]) rename2(r *request, dir N) unix.Errno {
	in := decode[fuse.RenameIn](r)
	if in == nil {
		return unix.EIO
	}
	return s.renameTo(r, dir, in.Newdir, in.Flags, int(unsafe.Sizeof(*in)))
}

func (s *session[N]) renameTo(r *request, dir N, newdir uint64, flags uint32, off int) unix.Errno {
	name, next, e := r.child(off)
	if e != 0 {
		return e
	}
	newName, _, e := r.child(next)
	if e != 0 {
		return e
	}
	to := dir
	if newdir != r.hdr.NodeId {
		var none N
		if to = s.fs.Node(newdir); to == none {
			return unix.ESTALE
		}
	}
	return errno(s.fs.Rename(&r.caller, dir, name, to, newName, flags))
}

// tmpfile answers O_TMPFILE. The kernel wants an open answer after the entry; with
// OPEN answered ENOSYS it forgets the handle and sends no RELEASE.
func (s *session[N]) tmpfile(r *request, dir N) unix.Errno {
	in := decode[fuse.CreateIn](r)
	if in == nil {
		return unix.EIO
	}
	r.caller.Umask = in.Umask
	a := &r.w.attr
	n, err := s.fs.Tmpfile(&r.caller, dir, in.Mode, a)
	if err != nil {
		return errno(err)
	}
	o := answer[fuse.CreateOut](r)
	r.entry = n.ID()
	s.fillEntry(&o.EntryOut, n, a)
	if s.open != nil {
		e := s.open.opened(r, n, in.Flags, &o.OpenOut)
		if e != 0 {
			s.undo(r)
			r.entry = 0
		}
		return e
	}
	o.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return 0
}
