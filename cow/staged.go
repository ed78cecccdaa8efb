package cow

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// Staged is a finished copy under a private name. Exactly one goroutine uses
// it, and ends its life with [Staged.Commit] or [Staged.Abort]; [Staged.Link]
// may come before either.
type Staged struct {
	Name string // in the work directory
	// FD is open read-write for a regular file, read-only for a directory, and
	// -1 for everything else. It stays open after Commit: take it with TakeFD
	// or close it with Close.
	FD      int
	Method  Method
	Partial bool         // an unfinished file, see Partial; any Method that copies may leave one
	Stat    unix.Statx_t // as staged; the rename changes its ctime

	e         *Engine
	rec       *Record // what a Partial one will be completed from
	dense     bool    // it has all blocks below rec.Valid
	dir       bool
	work      int  // descriptor of the work directory, while held
	held      bool // Engine.work.Done is owed
	committed bool
	start     time.Time
	event     Event
	later     *Pending // set by Hold
}

// Pending is the event of a copy-up that is not over with the file's new name:
// the write that asked for it is part of what it costs.
type Pending struct {
	bus   *Bus
	start time.Time
	event Event
}

// Hold makes Commit keep the event back, for the caller to publish after a
// commit that succeeded.
func (s *Staged) Hold() *Pending {
	s.later = &Pending{bus: s.e.bus, start: s.start}
	return s.later
}

// Publish publishes the event, after what was written to p, the unfinished file,
// since. p may be nil, and so may h.
func (h *Pending) Publish(p *Partial) {
	if h == nil {
		return
	}
	h.event.Time = time.Now()
	h.event.Copy = h.event.Time.Sub(h.start)
	if p != nil {
		h.event.BytesCopied += p.filled.Load()
		var st unix.Statx_t
		if statFD(p.fd, &st) == nil {
			h.event.UpperBytes = int64(st.Blocks) * 512
		}
	}
	h.bus.Publish(h.event)
}

// Commit gives the object its name in the directory dirfd, atomically. With
// replaceWhiteout something that is not a directory may be there and is
// replaced, otherwise EEXIST is returned. The parent's times are the caller's
// business. On error the object is still staged: abort it.
func (s *Staged) Commit(dirfd int, name string, replaceWhiteout bool) error {
	var err error
	switch {
	case !replaceWhiteout:
		err = layer.Rename(s.work, s.Name, dirfd, name, unix.RENAME_NOREPLACE)
		if err == unix.EINVAL { // a filesystem without the flag; callers hold the directory
			err = layer.Rename(s.work, s.Name, dirfd, name, 0)
		}
	case s.dir:
		// A directory cannot replace a whiteout, but trade places with it.
		err = layer.Rename(s.work, s.Name, dirfd, name, unix.RENAME_EXCHANGE)
		if err == nil {
			// Left behind it is only a stale name in the work directory.
			_ = layer.Unlink(s.work, s.Name)
		}
	default:
		err = layer.Rename(s.work, s.Name, dirfd, name, 0)
	}
	if err != nil {
		return err
	}
	s.committed = true
	if s.Partial {
		s.e.placed(true)
	}
	s.publish()
	s.release()
	return nil
}

// Link gives the object a further name, before Commit: the entry of a hard link
// index, say. On error the object is still staged.
func (s *Staged) Link(dirfd int, name string) error {
	return layer.Link(s.work, s.Name, dirfd, name)
}

// Abort removes a staged object and closes its descriptor. It does nothing
// after Commit, so that it may be deferred.
func (s *Staged) Abort() {
	if !s.committed {
		s.discard()
	}
}

// TakeFD returns the descriptor, which from then on is the caller's.
func (s *Staged) TakeFD() int {
	fd := s.FD
	s.FD = -1
	return fd
}

// OpenPartial is Engine.OpenPartial of an unfinished file, path its path in the view. It asks the filesystem
// nothing that is known. Call it before Commit: afterwards Settle may find the file and complete it.
func (s *Staged) OpenPartial(path string) (*Partial, error) {
	return s.e.openPartial(s.FD, &s.Stat, path, func(p *Partial) error {
		if err := p.begin(s.FD, s.rec, int64(s.Stat.Size)); err != nil {
			return err
		}
		switch {
		case s.dense:
			p.present.set(0, p.blocks(s.rec.Valid))
		case s.Method != MethodRange:
			return nil // it has holes
		}
		for i := range p.present.sections {
			p.present.sections[i].loaded.Store(true)
		}
		return nil
	})
}

// Close closes the descriptor if it was not taken.
func (s *Staged) Close() {
	if fd := s.TakeFD(); fd >= 0 {
		unix.Close(fd)
	}
}

func (s *Staged) discard() {
	s.Close()
	if s.Partial {
		s.Partial = false
		s.e.placed(false)
	}
	if s.held && s.Name != "" {
		// What cannot be removed now is removed by CleanWork at the next mount.
		if s.dir {
			_ = layer.Rmdir(s.work, s.Name)
		} else {
			_ = layer.Unlink(s.work, s.Name)
		}
		s.Name = ""
	}
	s.release()
}

func (s *Staged) release() {
	if s.held {
		s.held = false
		s.e.work.Done()
	}
}

func (s *Staged) publish() {
	s.event.Time = time.Now()
	s.event.Copy = s.event.Time.Sub(s.start)
	s.event.UpperBytes = int64(s.Stat.Blocks) * 512
	if s.later != nil {
		s.later.event = s.event
		return
	}
	s.e.bus.Publish(s.event)
}

func (s *Staged) stat(src *Source) error {
	var err error
	if s.FD >= 0 {
		err = statFD(s.FD, &s.Stat)
	} else {
		err = layer.Stat(s.work, s.Name, &s.Stat)
	}
	if err != nil {
		return fail(src, "stat", err)
	}
	return s.grantsNoMore(src)
}

// grantsNoMore refuses a copy that gives more than the original. Some filesystems take an owner and a mode without
// an error, and keep them as they please (vfat with the option quiet).
func (s *Staged) grantsNoMore(src *Source) error {
	if src.Stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil // its mode says nothing
	}
	if s.Stat.Mode&0o7777&^src.Stat.Mode != 0 {
		return fail(src, fmt.Sprintf("the upper made the mode %o of %o", s.Stat.Mode&0o7777, src.Stat.Mode&0o7777), unix.EOPNOTSUPP)
	}
	if !s.e.cfg.Squash && (s.Stat.Uid != src.Stat.Uid || s.Stat.Gid != src.Stat.Gid) {
		return fail(src, fmt.Sprintf("the upper made the owner %d:%d of %d:%d", s.Stat.Uid, s.Stat.Gid, src.Stat.Uid, src.Stat.Gid), unix.EPERM)
	}
	return nil
}
