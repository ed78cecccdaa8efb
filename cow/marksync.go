package cow

import (
	"slices"

	"golang.org/x/sys/unix"
)

// The mark must not be missing on a disk that has an unfinished file by its name. To sync
// the mark first costs the first file of a mount twenty times what the rest of it costs. But
// ext4, XFS and btrfs write changes of names to the disk in the order in which they were made, or
// at once: what comes after the mark is there only if the mark is. The one exception is
// fsync(2), which on btrfs (its log tree) and ext4 (fast commits) may take a single file
// ahead of the others. So the mark is synced in the background, and every fsync of something in the upper
// waits for that.

// ordered are the filesystems of which this is known, by statfs(2).
var ordered = []int64{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC}

// markSync is the mark being brought to the disk.
type markSync struct {
	done chan struct{}
	err  error // set before done is closed
}

// markSynced waits until the mark, if there is one, is on disk.
func (e *Engine) markSynced() error {
	s := e.list.sync.Load()
	if s == nil {
		return nil
	}
	<-s.done
	return s.err
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
	own := make([]int, 0, len(dirs))
	for _, fd := range dirs {
		if fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			closeAll(own)
			return err
		}
		own = append(own, fd)
	}
	s := &markSync{done: make(chan struct{})}
	e.list.sync.Store(s)
	go func() {
		s.err = fsyncAll(own)
		closeAll(own)
		close(s.done)
		if s.err == nil {
			e.list.sync.CompareAndSwap(s, nil)
			return
		}
		e.cfg.Log("mark the work directory: fsync: %v", s.err)
		e.list.mu.Lock()
		e.list.marked, e.list.slow = false, true // the next file tries again, and waits
		e.list.mu.Unlock()
	}()
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
