package overlay

import (
	"errors"
	"fmt"
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

// startWorker starts the idle worker.
func (fs *FS) startWorker() {
	budget := fs.cfg.SettleBudget
	if budget < 0 {
		return
	}
	if budget == 0 {
		budget = defaultBudget
	}
	fs.worker = make(chan struct{})
	fs.workers.Go(func() { fs.workIdle(budget) })
}

func (fs *FS) workIdle(budget int64) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	seen, since := uint64(0), time.Now()
	for {
		select {
		case <-fs.worker:
			return
		case <-tick.C:
		}
		if now := fs.bus.Sums().Total.Count + fs.partWrites.Load(); now != seen {
			seen, since = now, time.Now()
			continue
		}
		if time.Since(since) < idleAfter || fs.eng.Unfinished() == 0 {
			continue
		}
		before := fs.bus.Sums().Total.Count
		left, err := fs.eng.Settle(cow.SettleOptions{Budget: budget, Cancel: fs.worker})
		if err != nil && !errors.Is(err, unix.EINTR) {
			fs.cfg.logf("%s: completing files: %v", fs.cfg.Upper, err)
			since = time.Now().Add(time.Minute)
		}
		done := fs.bus.Sums().Total.Count
		if seen == before { // completions are events too, and no reason to wait
			seen = done + fs.partWrites.Load()
		}
		if left > 0 && done == before { // nothing that is left can be completed
			since = time.Now().Add(time.Minute)
		}
	}
}

// stopWorker ends the idle worker and waits for it.
func (fs *FS) stopWorker() {
	if fs.worker != nil {
		close(fs.worker)
		fs.workers.Wait()
	}
}

// Settle completes all unfinished files, or ends with EINTR. The value is not used.
func (fs *FS) Settle(_ string, cancel <-chan struct{}) error {
	if fs.eng == nil {
		return nil
	}
	left, err := fs.eng.Settle(cow.SettleOptions{Cancel: cancel})
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
	if !fs.cfg.NoSettle && fs.eng.Unfinished() > 0 {
		err = fs.lastSettle()
	}
	return errors.Join(err, fs.clearVolatile(), fs.eng.Close())
}

// lastSettle is Settle after the unmount, which a new mount of the same upper may cut
// short, and the removal of the upper too.
func (fs *FS) lastSettle() error {
	stage, err := fs.stage.FD()
	if err != nil {
		return nil // the work directory was removed: nobody needs the rest
	}
	defer fs.stage.Done()
	mark, err := layer.Open(stage, settlingMark, unix.O_CREAT|unix.O_WRONLY, 0o600)
	if err == nil {
		unix.Close(mark)
		defer func() { _ = layer.Unlink(stage, settlingMark) }()
	}
	cancel, done := make(chan struct{}), make(chan struct{})
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			var st Attr
			if layer.Stat(stage, takeoverMark, &st) == nil || gone(stage) {
				close(cancel)
				return
			}
		}
	}()
	left, err := fs.eng.Settle(cow.SettleOptions{Cancel: cancel, Progress: fs.cfg.Progress})
	close(done)
	switch {
	case errors.Is(err, unix.EINTR) || gone(stage):
		return nil
	case err != nil:
		return failure(fs.cfg.Upper, "not all partly copied files could be completed; mount it again with its lower layers", err)
	case left > 0:
		return failure(fs.cfg.Upper, fmt.Sprintf("%d partly copied files could not be completed; mount it again with its lower layers", left), nil)
	}
	return nil
}

// gone says whether the directory was removed.
func gone(fd int) bool {
	var st Attr
	return layer.Stat(fd, "", &st) != nil || st.Nlink == 0
}

// awaitLock waits for the lock on work or upper while an earlier mount completes files,
// asking it to stop. It returns false when a live mount holds it.
func (fs *FS) awaitLock(fd int, work string) bool {
	dir, err := unix.Open(work+"/work", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	var st Attr
	if layer.Stat(dir, settlingMark, &st) != nil {
		return false
	}
	if mark, err := layer.Open(dir, takeoverMark, unix.O_CREAT|unix.O_WRONLY, 0o600); err == nil {
		unix.Close(mark)
	}
	for range 1200 {
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			return true
		}
		time.Sleep(50 * time.Millisecond)
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
