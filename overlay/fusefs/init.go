package fusefs

import (
	"fmt"
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// negotiated is what kernel and daemon agreed upon.
type negotiated struct {
	setxattrExt bool
	writeback   bool
	passthrough bool
	acl         bool
}

const (
	fuseMajor = 7
	// minorNeeded is Linux 5.11's: kill-privilege v2 and long INIT flags are later,
	// and optional; without RENAME2 and LSEEK the view would not be right.
	minorNeeded = 31
	minorOurs   = 45
)

// wanted are the features asked for in every mode.
//
// NO_EXPORT_SUPPORT: a handle that somebody keeps (the index of an overlayfs over this mount) means another
// file after the next mount, or none.
//
// Left out on purpose: ATOMIC_O_TRUNC but in passthrough mode (there is no
// OPEN to carry it, or it copies nothing), AUTO_INVAL_DATA (a changed mtime would drop pages that only this
// mount can have changed), CREATE_SUPP_GROUP (the kernel decides about set-gid
// from the directory's answer), ALLOW_IDMAP (the kernel would hide the caller's
// uid from all requests that create nothing).
const wanted = fuse.CAP_ASYNC_READ | fuse.CAP_BIG_WRITES | fuse.CAP_DONT_MASK |
	fuse.CAP_IOCTL_DIR | fuse.CAP_READDIRPLUS | fuse.CAP_ASYNC_DIO |
	fuse.CAP_PARALLEL_DIROPS | fuse.CAP_MAX_PAGES | fuse.CAP_CACHE_SYMLINKS |
	fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_SETXATTR_EXT | fuse.CAP_INIT_EXT |
	fuse.CAP_DIRECT_IO_ALLOW_MMAP | fuse.CAP_NO_EXPORT_SUPPORT

// flagsFor returns the features to ask for under o.
func flagsFor(o *Options) uint64 {
	f := uint64(wanted)
	if o.ACL {
		f |= fuse.CAP_POSIX_ACL
	}
	switch o.Mode {
	case Cached:
		f |= fuse.CAP_EXPLICIT_INVAL_DATA
		if o.Writeback {
			f |= fuse.CAP_WRITEBACK_CACHE
		}
	case Passthrough:
		f |= fuse.CAP_PASSTHROUGH | fuse.CAP_EXPLICIT_INVAL_DATA | fuse.CAP_ATOMIC_O_TRUNC
	case Shared:
		f |= fuse.CAP_AUTO_INVAL_DATA
	}
	if o.shares {
		// When a size changes that this mount did not change, no page is good any more.
		f &^= fuse.CAP_EXPLICIT_INVAL_DATA
		if os.Geteuid() == 0 {
			f |= fuse.CAP_PASSTHROUGH
		}
	}
	if o.locks {
		f |= fuse.CAP_POSIX_LOCKS | fuse.CAP_FLOCK_LOCKS
	}
	return f
}

// handshake reads the kernel's INIT and answers it. It runs before any worker.
func (s *session[N]) handshake(c *conn) error {
	w, err := newWorker(c)
	if err != nil {
		return err
	}
	defer w.free()
	r := &w.req
	for {
		n, e := sysRead(c.fd, w.in[msgStart:])
		if e == unix.EINTR || e == unix.EAGAIN {
			continue
		}
		if e != 0 {
			return os.NewSyscallError("read /dev/fuse", e)
		}
		if n < inHeaderSize {
			return errShort
		}
		r.begin(w.in[msgStart : msgStart+n])
		in := decode[fuse.InitIn](r)
		if r.hdr.Opcode != opInit || in == nil {
			return fmt.Errorf("the kernel's first request is %d, not INIT", r.hdr.Opcode)
		}
		s.stat.requests[opInit].Add(1)
		if in.Major != fuseMajor || in.Minor < minorNeeded {
			_ = sysWrite(c.fd, r.frame(w.buf, unix.EPROTO))
			return fmt.Errorf("the kernel speaks FUSE %d.%d, %d.%d is needed", in.Major, in.Minor, fuseMajor, minorNeeded)
		}
		s.negotiate(in, answer[fuse.InitOut](r))
		if e := sysWrite(c.fd, r.frame(w.buf, 0)); e != 0 {
			return os.NewSyscallError("write /dev/fuse", e)
		}
		if s.opt.Mode == Passthrough && !s.neg.passthrough {
			return fmt.Errorf("mode passthrough: this kernel has no FUSE passthrough (Linux 6.9, CONFIG_FUSE_PASSTHROUGH)")
		}
		if s.neg.passthrough && !c.mayBack() { // root of a user namespace, say
			if s.opt.Mode == Passthrough {
				return fmt.Errorf("mode passthrough: the kernel takes files from root of the machine only; use mode cached")
			}
			s.neg.passthrough = false
		}
		return nil
	}
}

// negotiate fills in the answer to INIT and keeps what it says.
func (s *session[N]) negotiate(in *fuse.InitIn, out *fuse.InitOut) {
	flags := flagsFor(s.opt) & in.Flags64()
	if in.Flags64()&fuse.CAP_INIT_EXT == 0 {
		flags &= 1<<32 - 1
	}
	out.Major = fuseMajor
	out.Minor = min(in.Minor, minorOurs)
	out.MaxReadAhead = max(in.MaxReadAhead, maxIO) // the kernel takes the smaller
	out.Flags = uint32(flags)
	out.Flags2 = uint32(flags >> 32)
	out.MaxBackground = 128
	out.CongestionThreshold = 96
	out.MaxWrite = maxIO
	out.MaxPages = maxIO / pageSize
	out.TimeGran = 1
	if flags&fuse.CAP_PASSTHROUGH != 0 {
		out.MaxStackDepth = 1 // a backing file on a plain filesystem
	}
	s.neg = negotiated{
		setxattrExt: flags&fuse.CAP_SETXATTR_EXT != 0,
		writeback:   flags&fuse.CAP_WRITEBACK_CACHE != 0,
		passthrough: flags&fuse.CAP_PASSTHROUGH != 0,
		acl:         flags&fuse.CAP_POSIX_ACL != 0,
	}
}
