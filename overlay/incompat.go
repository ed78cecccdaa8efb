package overlay

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
)

// work/incompat has a name for each reason not to mount an upper; the kernel refuses an upper for any of
// them (ovl_workdir_cleanup_recurse). Three are known here: the mark of unfinished files, which is
// package cow's, that of a volatile mount, and that of redirects in user attributes.
const (
	incompatDir  = "incompat"
	volatileMark = "volatile"
)

// checkIncompat refuses an upper that something speaks against. The mark of a volatile mount says that the
// upper may not be what was written if it is still there at the next mount (kernel:
// overlayfs.rst, "Volatile mount").
func (fs *FS) checkIncompat() error {
	fd, err := fs.stage.FD()
	if err != nil {
		return failure(fs.cfg.Work, "cannot open the staging directory in it", err)
	}
	defer fs.stage.Done()
	dir, err := layer.Open(fd, incompatDir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return failure(fs.cfg.Work, "cannot read work/incompat in it", err)
	}
	defer unix.Close(dir)
	marks, err := layer.ReadDir(dir)
	if err != nil {
		return failure(fs.cfg.Work, "cannot read work/incompat in it", err)
	}
	for _, m := range marks {
		path := filepath.Join(fs.cfg.Work, "work", incompatDir, m.Name)
		switch m.Name {
		case cow.PartialMark:
		case movedMark:
			fs.astray.Store(true)
		case volatileMark:
			return refusal(fs.cfg.Upper, "was mounted volatile, and not unmounted by plyfs: it may lack writes; to use it all the same remove "+path, unix.EINVAL)
		default:
			return refusal(fs.cfg.Upper, fmt.Sprintf("needs %q, which this plyfs does not know (see %s)", m.Name, path), unix.EINVAL)
		}
	}
	return nil
}

// markVolatile makes the mark of a volatile mount, as the kernel does.
func (fs *FS) markVolatile() error {
	if !fs.cfg.Volatile {
		return nil
	}
	if err := fs.mkIncompat(volatileMark, "dirty"); err != nil {
		return failure(fs.cfg.Work, "cannot write the volatile mark", err)
	}
	return nil
}

// mkIncompat makes a mark, with an empty file in it unless file is "", and syncs it unless the
// mount is volatile.
func (fs *FS) mkIncompat(mark, file string) error {
	fd, err := fs.stage.FD()
	if err != nil {
		return err
	}
	defer fs.stage.Done()
	var dirs []int
	for _, name := range [...]string{incompatDir, mark} {
		err := layer.Mkdir(fd, name, 0o700)
		if err != nil && err != unix.EEXIST {
			return err
		}
		if fd, err = layer.Open(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
			return err
		}
		defer unix.Close(fd)
		dirs = append(dirs, fd)
	}
	if file != "" {
		f, err := layer.Open(fd, file, unix.O_WRONLY|unix.O_CREAT, 0o600)
		if err != nil {
			return err
		}
		unix.Close(f)
	}
	if fs.cfg.Volatile {
		return nil
	}
	for _, d := range dirs {
		if err := retry(func() error { return unix.Fsync(d) }); err != nil {
			return err
		}
	}
	return nil
}

// rmIncompat takes a mark away.
func (fs *FS) rmIncompat(mark string) error {
	fd, err := fs.stage.FD()
	if err != nil {
		return err
	}
	defer fs.stage.Done()
	dir, err := layer.Open(fd, incompatDir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := layer.RemoveAll(dir, mark); err != nil {
		return err
	}
	_ = layer.Rmdir(fd, incompatDir) // stays while there are other marks
	return nil
}

// clearVolatile takes the mark away: all is on disk.
func (fs *FS) clearVolatile() error {
	if !fs.cfg.Volatile {
		return nil
	}
	if err := fs.syncAll(); err != nil {
		return err
	}
	return fs.rmIncompat(volatileMark)
}
