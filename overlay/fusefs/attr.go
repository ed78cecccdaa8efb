package fusefs

import (
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// validity is a timeout as the protocol wants it.
type validity struct {
	sec  uint64
	nsec uint32
}

func validFor(d time.Duration) validity {
	if d < 0 {
		d = 0
	}
	return validity{sec: uint64(d / time.Second), nsec: uint32(d % time.Second)}
}

// newEncodeDev packs a device number as new_encode_dev() of linux/kdev_t.h does.
func newEncodeDev(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | minor&^0xff<<12
}

func fillAttr(o *fuse.Attr, a *Attr) {
	o.Ino = a.Ino
	o.Size = a.Size
	o.Blocks = a.Blocks
	o.Atime = uint64(a.Atime.Sec)
	o.Mtime = uint64(a.Mtime.Sec)
	o.Ctime = uint64(a.Ctime.Sec)
	o.Atimensec = a.Atime.Nsec
	o.Mtimensec = a.Mtime.Nsec
	o.Ctimensec = a.Ctime.Nsec
	o.Mode = uint32(a.Mode)
	o.Nlink = a.Nlink
	o.Uid = a.Uid
	o.Gid = a.Gid
	o.Rdev = newEncodeDev(a.Rdev_major, a.Rdev_minor)
	o.Blksize = a.Blksize
	o.Flags = 0
}

// keep returns how long the kernel may believe in the name and in the attributes of n, which are a.
func (s *session[N]) keep(n N, a *Attr) (entry, attr validity) {
	entry, attr = s.entryValid, s.attrValid
	if s.shares != nil {
		name, rest := s.shares.Keep(n)
		if !name {
			entry = validity{}
		}
		if !rest {
			attr = validity{}
		}
	}
	if s.open.twofold(a.Ino) {
		attr = validity{}
	}
	return entry, attr
}

// fillEntry writes the answer of an operation that found or made a node.
func (s *session[N]) fillEntry(o *fuse.EntryOut, n N, a *Attr) {
	entry, attr := s.keep(n, a)
	o.NodeId = n.ID()
	o.Generation = s.generation
	o.EntryValid = entry.sec
	o.EntryValidNsec = entry.nsec
	o.AttrValid = attr.sec
	o.AttrValidNsec = attr.nsec
	fillAttr(&o.Attr, a)
}

// entry answers r with a node that carries a new reference.
func (s *session[N]) entry(r *request, n N, a *Attr) unix.Errno {
	r.entry = n.ID()
	s.fillEntry(answer[fuse.EntryOut](r), n, a)
	return 0
}

func (s *session[N]) attr(r *request, n N, a *Attr) unix.Errno {
	o := answer[fuse.AttrOut](r)
	_, valid := s.keep(n, a)
	o.AttrValid = valid.sec
	o.AttrValidNsec = valid.nsec
	fillAttr(&o.Attr, a)
	return 0
}

func (s *session[N]) getattr(r *request, n N) unix.Errno {
	s.listings.asked(r.hdr.Pid)
	a := &r.w.attr
	if err := s.fs.Getattr(n, a); err != nil {
		return errno(err)
	}
	return s.attr(r, n, a)
}

// statx is asked when a caller wants the birth time. struct fuse_statx is struct
// statx up to the fields only the kernel can fill (mount id and later).
func (s *session[N]) statx(r *request, n N) unix.Errno {
	if decode[fuse.StatxIn](r) == nil {
		return unix.EIO
	}
	a := &r.w.attr
	if err := s.fs.Getattr(n, a); err != nil {
		return errno(err)
	}
	o := answer[fuse.StatxOut](r)
	_, valid := s.keep(n, a)
	o.AttrValid = valid.sec
	o.AttrValidNsec = valid.nsec
	x := &o.Statx
	x.Mask = a.Mask & (unix.STATX_BASIC_STATS | unix.STATX_BTIME)
	x.Blksize = a.Blksize
	x.Nlink = a.Nlink
	x.Uid = a.Uid
	x.Gid = a.Gid
	x.Mode = a.Mode
	x.Ino = a.Ino
	x.Size = a.Size
	x.Blocks = a.Blocks
	x.Atime = sxTime(a.Atime)
	x.Btime = sxTime(a.Btime)
	x.Ctime = sxTime(a.Ctime)
	x.Mtime = sxTime(a.Mtime)
	x.RdevMajor = a.Rdev_major
	x.RdevMinor = a.Rdev_minor
	return 0
}

func sxTime(t unix.StatxTimestamp) fuse.SxTime {
	return fuse.SxTime{Sec: uint64(t.Sec), Nsec: t.Nsec}
}

// setattrBits pairs the protocol's bits with the union's.
var setattrBits = [...]struct{ wire, mask uint32 }{
	{fuse.FATTR_MODE, SetMode},
	{fuse.FATTR_UID, SetUID},
	{fuse.FATTR_GID, SetGID},
	{fuse.FATTR_SIZE, SetSize},
	{fuse.FATTR_ATIME, SetAtime},
	{fuse.FATTR_MTIME, SetMtime},
	{fuse.FATTR_ATIME_NOW, SetAtimeNow},
	{fuse.FATTR_MTIME_NOW, SetMtimeNow},
	{fuse.FATTR_KILL_SUIDGID, KillPriv},
}

// decodeSetattr translates a SETATTR. FATTR_CTIME (sent in writeback mode) is left
// out: a change time cannot be set, and every change we make sets it.
func decodeSetattr(in *fuse.SetAttrIn, s *SetAttr) {
	*s = SetAttr{
		Mode:  in.Mode & 07777,
		UID:   in.Uid,
		GID:   in.Gid,
		Size:  int64(in.Size),
		Atime: unix.Timespec{Sec: int64(in.Atime), Nsec: int64(in.Atimensec)},
		Mtime: unix.Timespec{Sec: int64(in.Mtime), Nsec: int64(in.Mtimensec)},
	}
	for _, b := range setattrBits {
		if in.Valid&b.wire != 0 {
			s.Mask |= b.mask
		}
	}
}

// killsAlone says whether a SETATTR that changes nothing is what fuse_setattr leaves of
// ATTR_KILL_SUID and ATTR_KILL_SGID once kill-privilege v2 is negotiated: for a chown of
// nothing, for fallocate, and for a write that passes us by (passthrough). It comes as well
// after a write by root has taken a capability away, and then means nothing: root who has the file
// open for writing is taken to have written.
func (s *session[N]) killsAlone(in *fuse.SetAttrIn, c *Caller, a *Attr) bool {
	const (
		handle = fuse.FATTR_FH | fuse.FATTR_LOCKOWNER
		ctime  = fuse.FATTR_CTIME // with writeback, for the chown alone
	)
	if in.Valid&ctime != 0 {
		return in.Valid&^(handle|ctime) == 0
	}
	return in.Valid&^handle == 0 && (c.UID != 0 || !c.Writes(s.dev, a.Ino))
}

// mayKill says whether the caller may take set-id bits, and with them a capability, away from a file without
// changing anything else. The kernel does not ask for a chown of nothing, which is for the owner where there are
// such bits; everything else that ends in the same request is done by somebody who has the file open for writing.
func (s *session[N]) mayKill(c *Caller, a *Attr) bool {
	if a.Mode&unix.S_IFMT != unix.S_IFREG || c.UID == 0 || c.UID == a.Uid {
		return true
	}
	setID := a.Mode&unix.S_ISUID != 0 || a.Mode&unix.S_ISGID != 0 && (a.Mode&0o010 != 0 || !c.InGroup(a.Gid))
	return !setID || c.Writes(s.dev, a.Ino) || c.Capable(unix.CAP_FOWNER)
}

func (s *session[N]) setattr(r *request, n N) unix.Errno {
	in := decode[fuse.SetAttrIn](r)
	if in == nil || int64(in.Size) < 0 {
		return unix.EINVAL
	}
	var set SetAttr
	decodeSetattr(in, &set)
	a := &r.w.attr
	if set.Mask == 0 {
		if err := s.fs.Getattr(n, a); err != nil {
			return errno(err)
		}
		if !s.killsAlone(in, &r.caller, a) {
			return s.attr(r, n, a)
		}
		if !s.mayKill(&r.caller, a) {
			return unix.EPERM
		}
		set.Mask = KillPriv
	}
	err := s.fs.Setattr(&r.caller, n, &set, a)
	if errno(err) == unix.EPERM && s.neg.writeback && flushesTimes(in) {
		err = s.fs.Getattr(n, a) // append-only: the write has set its time
	}
	if err != nil {
		return errno(err)
	}
	return s.attr(r, n, a)
}

// flushesTimes knows the SETATTR by which the kernel hands over the time of gathered writes
// (fuse_flush_times). A call that sets the modification time alone looks the same.
func flushesTimes(in *fuse.SetAttrIn) bool {
	return in.Valid&^(fuse.FATTR_FH|fuse.FATTR_LOCKOWNER) == fuse.FATTR_MTIME|fuse.FATTR_CTIME
}

func (s *session[N]) statfs(r *request, n N) unix.Errno {
	var st unix.Statfs_t
	if err := s.fs.Statfs(n, &st); err != nil {
		return errno(err)
	}
	o := answer[fuse.StatfsOut](r)
	o.Blocks = st.Blocks
	o.Bfree = st.Bfree
	o.Bavail = st.Bavail
	o.Files = st.Files
	o.Ffree = st.Ffree
	o.Bsize = uint32(st.Bsize)
	o.NameLen = uint32(st.Namelen)
	o.Frsize = uint32(st.Frsize)
	return 0
}

func (s *session[N]) syncfs(*request, N) unix.Errno {
	return errno(s.fs.Syncfs())
}

// The wire layout is checked at compile time where a mistake would corrupt silently.
var _ [88]byte = [unsafe.Sizeof(fuse.Attr{})]byte{}
var _ [128]byte = [unsafe.Sizeof(fuse.EntryOut{})]byte{}
var _ [288]byte = [unsafe.Sizeof(fuse.StatxOut{})]byte{}
