package cow

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The mark must not be missing on a disk that has an unfinished file by its name. To sync
// the mark first costs the first file of a mount twenty times what the rest of it costs. But
// ext4, XFS and btrfs write changes of names to the disk in the order in which they were made, or
// at once: what comes after the mark is there only if the mark is. The one exception is
// fsync(2), which on btrfs (its log tree) and ext4 (fast commits) may take a single file
// ahead of the others. So the mark is synced before the first fsync of something in the upper,
// or, where nobody asks for one, a while later: at once it would stand in the way of the
// change that made the mark, which then waits for the journal.

// markDelay is how long the sync of a mark waits for somebody who needs it.
const markDelay = time.Second

// ordered are the filesystems of which this is known, by statfs(2).
var ordered = []int64{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC}

// markSync is a mark that is still to be brought to the disk.
type markSync struct {
	once sync.Once
	dirs []int // open directories, until once is done
	err  error // set by once
}

// markSynced sees to it that the mark, if there is one, is on disk. list.mu is not held.
func (e *Engine) markSynced() error {
	s := e.list.sync.Load()
	if s == nil {
		return nil
	}
	return e.sync(s)
}

// sync brings a mark to the disk, or waits until somebody has done so.
func (e *Engine) sync(s *markSync) error {
	s.once.Do(func() {
		s.err = fsyncAll(s.dirs)
		closeAll(s.dirs)
		if s.err == nil {
			e.list.sync.CompareAndSwap(s, nil)
			return
		}
		e.cfg.Log("mark the work directory: fsync: %v", s.err)
		e.list.mu.Lock()
		e.list.marked, e.list.slow = false, true // the next file tries again, and waits
		e.list.mu.Unlock()
	})
	return s.err
}

// needless ends what syncMark began: the mark is gone.
func (s *markSync) needless() {
	if s != nil {
		s.once.Do(func() { closeAll(s.dirs) })
	}
}

// Fsync is fsync(2), or fdatasync(2), of something that is in the upper or about to be. Nothing there may be
// synced in another way but by syncfs(2).
func (e *Engine) Fsync(fd int, datasync bool) error {
	if err := e.markSynced(); err != nil {
		return err
	}
	sync := unix.Fsync
	if datasync {
		sync = unix.Fdatasync
	}
	return ignoringEINTR(func() error { return sync(fd) })
}

// syncMark sees to it that the directories of a new mark are on disk before what follows. list.mu is held.
func (e *Engine) syncMark(dirs ...int) error {
	var fs unix.Statfs_t
	err := ignoringEINTR(func() error { return unix.Fstatfs(dirs[0], &fs) })
	if err != nil || e.list.slow || !slices.Contains(ordered, int64(fs.Type)) {
		e.list.sync.Store(nil)
		return fsyncAll(dirs)
	}
	s := &markSync{}
	for _, fd := range dirs {
		if fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			closeAll(s.dirs)
			return err
		}
		s.dirs = append(s.dirs, fd)
	}
	e.list.sync.Store(s)
	time.AfterFunc(markDelay, func() { _ = e.sync(s) }) // an error was logged
	return nil
}

func fsyncAll(fds []int) error {
	for _, fd := range fds {
		if err := ignoringEINTR(func() error { return unix.Fsync(fd) }); err != nil {
			return err
		}
	}
	return nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
