package fusefs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func (s *session[N]) getlk(r *request, n N) unix.Errno {
	in := decode[fuse.LkIn](r)
	if in == nil {
		return unix.EIO
	}
	lk := Lock{in.Lk.Start, in.Lk.End, in.Lk.Typ, in.Lk.Pid}
	if err := s.locks.Getlk(&r.caller, n, in.Owner, &lk); err != nil {
		return errno(err)
	}
	answer[fuse.LkOut](r).Lk = fuse.FileLock{Start: lk.Start, End: lk.End, Typ: lk.Type, Pid: lk.PID}
	return 0
}

// setlk serves SETLK and SETLKW. Who has to wait gives the worker back.
func (s *session[N]) setlk(r *request, n N) unix.Errno {
	in := decode[fuse.LkIn](r)
	if in == nil {
		return unix.EIO
	}
	lk := Lock{in.Lk.Start, in.Lk.End, in.Lk.Typ, in.Lk.Pid}
	caller := r.caller // r is not ours while we wait
	handle, owner, flock := in.Fh, in.Owner, in.LkFlags&fuse.LK_FLOCK != 0
	e := errno(s.locks.Setlk(&caller, n, handle, owner, &lk, flock, false, nil))
	if e != unix.EAGAIN {
		return e
	}
	if r.hdr.Opcode == opSetlk {
		return s.settled(r, func() unix.Errno {
			return errno(s.locks.Setlk(&caller, n, handle, owner, &lk, flock, false, nil))
		})
	}
	return s.conn.later(r, func(cancel <-chan struct{}) unix.Errno {
		return errno(s.locks.Setlk(&caller, n, handle, owner, &lk, flock, true, cancel))
	})
}

// settled asks again for a lock that was refused, after the releases that were sent before
// the request have been served. close(2) does not wait for RELEASE, which ends a BSD lock: whoever
// tries for one right after must not find the old one because another worker is slower.
func (s *session[N]) settled(r *request, try func() unix.Errno) unix.Errno {
	e := unix.EAGAIN
	for range 4 {
		time.Sleep(500 * time.Microsecond) // who has read a request, and not said so yet
		busy := s.conn.serving(r.hdr.Unique, opRelease)
		if e = try(); e != unix.EAGAIN || !busy {
			break
		}
	}
	return e
}

// serving says whether a worker serves a request of the kind that is older than unique.
func (c *conn) serving(unique uint64, op uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.pool {
		if u := w.current.Load() &^ interrupted; u != 0 && u < unique && w.opcode.Load() == op {
			return true
		}
	}
	return false
}
