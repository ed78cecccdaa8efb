package overlay

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
)

// Unfinished files (see package cow) are completed by a worker while nobody changes
// anything, when asked, and at unmount.

// defaultBudget is how many bytes the worker copies per second.
const defaultBudget = 64 << 20

// idleAfter is how long nothing may have been copied up before the worker begins.
const idleAfter = 2 * time.Second

// Names in the staging directory by which a mount that is ending and one that is
// beginning speak. They begin as staging names do, so that whoever mounts next, here or
// in the kernel, clears them.
const (
	settlingMark = "#settling" // its maker is unmounted and completes files
	takeoverMark = "#takeover" // somebody wants to mount: leave the rest to them
)

// settling is the state of what completes files.
type settling struct {
	stop    chan struct{} // closed to end the idle worker
	worker  sync.WaitGroup
	hurry   atomic.Int32  // how many wait for it to be done
	changes atomic.Uint64 // copy-ups, and changes of unfinished files

	mu          sync.Mutex // a leaf
	running     bool       // guarded by mu
	done, total int64      // bytes, while running; guarded by mu
}

// startWorker starts the idle worker.
func (fs *FS) startWorker() {
	budget := fs.cfg.SettleBudget
	if budget < 0 {
		return
	}
	if budget == 0 {
		budget = defaultBudget
	}
	stop := make(chan struct{})
	fs.settle.stop = stop
	fs.settle.worker.Go(func() {
		// Nobody waits for the worker: a fault in it is not the end of the mount.
		defer func() {
			if p := recover(); p != nil {
				fs.cfg.logf("%s: completing files while idle ends: panic: %v\n%s", fs.cfg.Upper, p, debug.Stack())
			}
		}()
		fs.workIdle(budget, stop)
	})
}

// stopWorker ends the idle worker and waits for it.
func (fs *FS) stopWorker() {
	if fs.settle.stop != nil {
		close(fs.settle.stop)
		fs.settle.worker.Wait()
		fs.settle.stop = nil
	}
}

// workIdle completes files, at most budget bytes per second, while nobody changes
// anything.
func (fs *FS) workIdle(budget int64, stop <-chan struct{}) {
	idle := idleness{changes: &fs.settle.changes}
	const most = time.Hour
	wait, next := time.Minute, time.Time{}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if fs.eng.Unfinished() == 0 {
			wait, next = time.Minute, time.Time{}
			continue
		}
		if !idle.now() || time.Now().Before(next) {
			continue
		}
		began := time.Now()
		left, err := fs.runSettle(cow.SettleOptions{Budget: budget, Cancel: stop, Pace: func() error {
			// The bytes were copied since began; now the rest of that second, and of
			// whatever the others are busy with.
			for first := true; first || !idle.now() || time.Since(began) < time.Second; first = false {
				if fs.settle.hurry.Load() > 0 {
					break
				}
				select {
				case <-stop:
					return unix.EINTR
				case <-time.After(50 * time.Millisecond):
				}
			}
			began = time.Now()
			return nil
		}})
		if err != nil && !errors.Is(err, unix.EINTR) {
			fs.cfg.logf("%s: completing files: %v", fs.cfg.Upper, err)
		}
		if left != 0 || err != nil { // what cannot be completed now is tried again, less and less often
			next = time.Now().Add(wait)
			wait = min(2*wait, most)
		}
	}
}

// idleness tells when nothing has changed for idleAfter.
type idleness struct {
	changes *atomic.Uint64
	seen    uint64
	since   time.Time
}

func (i *idleness) now() bool {
	if n := i.changes.Load(); n != i.seen || i.since.IsZero() {
		i.seen, i.since = n, time.Now()
	}
	return time.Since(i.since) >= idleAfter
}

// runSettle is Engine.Settle, watched by plyfs stat.
func (fs *FS) runSettle(o cow.SettleOptions) (left int, err error) {
	s := &fs.settle
	also := o.Progress
	o.Progress = func(done, total int64) {
		s.mu.Lock()
		s.running, s.done, s.total = true, done, total
		s.mu.Unlock()
		if also != nil {
			also(done, total)
		}
	}
	defer func() {
		s.mu.Lock()
		s.running = false
		s.mu.Unlock()
	}()
	return fs.eng.Settle(o)
}

// Settle completes all unfinished files, or ends with EINTR. The value is not used.
func (fs *FS) Settle(_ string, cancel <-chan struct{}) error {
	if fs.eng == nil {
		return nil
	}
	fs.settle.hurry.Add(1) // the worker may be at it
	defer fs.settle.hurry.Add(-1)
	left, err := fs.runSettle(cow.SettleOptions{Cancel: cancel})
	if err == nil && left > 0 {
		return unix.EIO // each was logged
	}
	return err
}

// finish completes what is unfinished and takes the marks of this mount away.
func (fs *FS) finish() error {
	if fs.eng == nil {
		return nil
	}
	var err error
	if !fs.cfg.NoSettle && (fs.eng.Unfinished() > 0 || fs.untidy()) {
		err = fs.lastSettle()
	}
	fs.stopWorker()
	if fs.removedUpper() { // a container was removed meanwhile, as podman rm does
		return fs.eng.Close()
	}
	if fs.cfg.NoSettle && !fs.unused {
		err = fs.eng.ClearMark()
	}
	cleared := fs.clearVolatile()
	if cleared != nil && !fs.removedUpper() {
		cleared = failure(fs.cfg.Work, "cannot take the volatile mark away", cleared)
	} else {
		cleared = nil
	}
	return errors.Join(err, cleared, fs.eng.Close())
}

// removedUpper says whether somebody removed the upper or the work directory.
func (fs *FS) removedUpper() bool {
	stage, err := fs.stage.FD()
	if err != nil {
		return true
	}
	defer fs.stage.Done()
	return fs.gone(stage)
}

// announceSettling lets those who want to use the upper as a layer wait: a lock that an open
// file description has on the directory, of which GETLK tells (see awaitSettled).
func (fs *FS) announceSettling() func() {
	fd, err := fs.upper.Root.FD()
	if err != nil {
		return func() {}
	}
	own, err := layer.Open(fd, "", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	fs.upper.Root.Done()
	if err != nil {
		return func() {}
	}
	lock := unix.Flock_t{Type: unix.F_RDLCK}
	_ = unix.FcntlFlock(uintptr(own), unix.F_OFD_SETLK, &lock)
	return func() { unix.Close(own) }
}

// awaitSettled waits while a mount that has ended still completes files of a directory that is
// now to be a lower layer: Podman uses one step's upper as the next one's lower at once. While the
// daemon holds its mount's lock but has not said that it completes files it may be about to.
// own is the directory, opened for this.
func awaitSettled(own int) {
	about := 0
	for range 6000 {
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		settling := unix.FcntlFlock(uintptr(own), unix.F_OFD_GETLK, &lock) == nil && lock.Type != unix.F_UNLCK
		if !settling {
			if unix.Flock(own, unix.LOCK_SH|unix.LOCK_NB) != unix.EWOULDBLOCK {
				return
			}
			if about++; about > 30 {
				return // a live mount: whoever stacks on it knows why
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// lastSettle is Settle after the unmount, which a new mount of the same upper may cut
// short, and the removal of the upper too.
func (fs *FS) lastSettle() error {
	stage, err := fs.stage.FD()
	if err != nil {
		return nil // the work directory was removed: nobody needs the rest
	}
	defer fs.stage.Done()
	defer fs.announceSettling()()
	mark, err := layer.Open(stage, settlingMark, unix.O_CREAT|unix.O_WRONLY, 0o600)
	if err == nil {
		unix.Close(mark)
		defer func() { _ = layer.Unlink(stage, settlingMark) }()
	}
	fs.stopWorker()
	cancel, done := make(chan struct{}), make(chan struct{})
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			var st Attr
			if layer.Stat(stage, takeoverMark, &st) == nil || fs.gone(stage) || fs.cfg.Unwanted != nil && fs.cfg.Unwanted() {
				close(cancel)
				return
			}
		}
	}()
	left := 0
	tidied := fs.tidy(cancel)
	if !errors.Is(tidied, unix.EINTR) {
		left, err = fs.runSettle(cow.SettleOptions{Cancel: cancel, Progress: fs.cfg.Progress})
	}
	close(done)
	switch {
	case errors.Is(err, unix.EINTR) || errors.Is(tidied, unix.EINTR) || fs.gone(stage):
		return nil
	case tidied != nil:
		return failure(fs.cfg.Upper, "could not be made ready for the kernel's overlayfs; mount it again with its lower layers", tidied)
	case err != nil:
		return failure(fs.cfg.Upper, "not all partly copied files could be completed; mount it again with its lower layers", err)
	case left > 0:
		return failure(fs.cfg.Upper, fmt.Sprintf("%d partly copied files could not be completed; mount it again with its lower layers", left), nil)
	}
	return nil
}

// gone says whether the staging directory, or the upper, was removed.
func (fs *FS) gone(stage int) bool {
	var st Attr
	if layer.Stat(stage, "", &st) != nil || st.Nlink == 0 {
		return true
	}
	fd, err := fs.upper.Root.FD()
	if err != nil {
		return true
	}
	defer fs.upper.Root.Done()
	return layer.Stat(fd, "", &st) != nil || st.Nlink == 0
}

// How long a mount waits for the lock of another one: a little, because a daemon ends
// shortly after its mount; long while it completes files, which it has been asked to
// leave.
const (
	lockPatience     = time.Second
	takeoverPatience = time.Minute
)

// awaitLock waits for the lock on work or upper while an earlier mount is ending, and
// asks it to leave unfinished files to us. It returns false when a live mount holds it.
func (fs *FS) awaitLock(fd int, work string) bool {
	dir, err := unix.Open(work+"/work", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	asked := false
	for deadline := time.Now().Add(lockPatience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			return true
		}
		var st Attr
		if asked || layer.Stat(dir, settlingMark, &st) != nil {
			continue
		}
		if mark, err := layer.Open(dir, takeoverMark, unix.O_CREAT|unix.O_WRONLY, 0o600); err == nil {
			unix.Close(mark)
			asked, deadline = true, time.Now().Add(takeoverPatience)
		}
	}
	return false
}

// resolveRecord finds the lower file that the record of an unfinished file speaks of: where the
// record says, else in any layer under the same path. Whether it is the file is checked by the
// engine.
func (fs *FS) resolveRecord(r *cow.Record) (*layer.Dir, string, error) {
	var dir *layer.Dir
	var name string
	for _, trees := range [...][]*layer.Tree{fs.lowers, fs.datas} {
		for _, t := range trees {
			d, nm, ok := fs.walk(t, r.Path)
			if !ok {
				continue
			}
			fd, err := d.FD()
			if err != nil {
				continue
			}
			var st Attr
			err = layer.Stat(fd, nm, &st)
			d.Done()
			if err != nil {
				continue
			}
			if st.Ino == r.Ino && int64(st.Size) == r.Size && st.Mtime.Sec == r.Mtime.Sec && st.Mtime.Nsec == r.Mtime.Nsec {
				return d, nm, nil
			}
			if dir == nil || t.Path == r.Layer {
				dir, name = d, nm
			}
		}
	}
	if dir == nil {
		return nil, "", unix.ENOENT
	}
	return dir, name, nil
}
