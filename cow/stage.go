package cow

import (
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// Source is the object to copy up.
type Source struct {
	Dir  *layer.Dir // directory of the topmost layer that has the object
	Name string
	Stat unix.Statx_t // of Dir/Name, with the size of the data
	// FD is a regular file, open for reading, that Stat and Handle are of; it stays the
	// caller's. 0: Dir/Name is opened. Handle is nil where it has none, or with FD 0.
	FD     int
	Handle *unix.FileHandle
	// DataDir and DataName say where the data is when Dir/Name is a
	// metadata-only file; zero for the same place.
	DataDir  *layer.Dir
	DataName string
	Path     string // in the view: for events and errors
}

func (s *Source) data() (*layer.Dir, string) {
	if s.DataDir != nil {
		return s.DataDir, s.DataName
	}
	return s.Dir, s.Name
}

// Want says how much of the source is needed, by whom, and why.
type Want struct {
	// Size is the size in bytes that the new file is to have: -1 for the
	// source's, 0 for O_TRUNC. Data beyond it is not copied, and unless it is
	// the source's own size the modification time becomes the current one.
	Size int64
	// MetaOnly says that only attributes are about to change: data may stay
	// below. The result is a metadata-only file with Config.Metacopy, else an
	// unfinished file where the upper can hold one, else a whole copy.
	MetaOnly bool
	// Range allows an unfinished file from Config.Threshold on.
	Range bool

	Cause  Cause
	PID    uint32
	Asked  int64         // bytes the caller is about to change, for the event
	Wait   time.Duration // spent waiting for another copy-up of this object, for the event
	Cancel <-chan struct{}
	Origin []byte      // value of the origin mark; nil for none
	Xattrs [][2]string // further marks, name and value
}

func (w *Want) truncates(src *Source) bool {
	return w.Size >= 0 && src.Stat.Mode&unix.S_IFMT == unix.S_IFREG && w.Size != int64(src.Stat.Size)
}

// Stage builds the copy of src in the work directory. The caller commits,
// links or aborts the result. On error nothing is left behind; the error wraps
// the errno: EINTR when w.Cancel was closed, EPERM or EOVERFLOW when the upper
// cannot keep an owner, EOPNOTSUPP when it cannot keep an access list.
// No lock is held; see the package comment.
func (e *Engine) Stage(src *Source, w *Want) (*Staged, error) {
	s := &Staged{e: e, FD: -1, Method: MethodNone, start: time.Now()}
	s.event = Event{Path: src.Path, Cause: w.Cause, PID: w.PID, BytesAsked: w.Asked, Wait: w.Wait,
		FileBytes: int64(src.Stat.Size)}
	if src.Dir != nil {
		if t := src.Dir.Tree(); t != nil {
			s.event.Layer, s.event.LayerIndex = t.Path, t.Index
		}
	}
	err := e.stage(s, src, w)
	s.event.Method = s.Method
	if err != nil {
		s.discard()
		s.event.Time = time.Now()
		s.event.Copy = s.event.Time.Sub(s.start)
		s.event.Err = errnoText(err)
		e.bus.Publish(s.event)
		return nil, err
	}
	return s, nil
}

func errnoText(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		if name := unix.ErrnoName(errno); name != "" {
			return name
		}
		return "errno " + strconv.Itoa(int(errno))
	}
	return err.Error()
}

func (e *Engine) stage(s *Staged, src *Source, w *Want) error {
	if canceled(w.Cancel) {
		return fail(src, "start", unix.EINTR)
	}
	dir, err := src.Dir.FD()
	if err != nil {
		return fail(src, "open its directory", err)
	}
	defer src.Dir.Done()
	if s.work, err = e.work.FD(); err != nil {
		return fail(src, "open the work directory", err)
	}
	s.held = true
	switch src.Stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return e.stageRegular(s, src, w, dir)
	case unix.S_IFDIR:
		return e.stageDirectory(s, src, w, dir)
	default:
		return e.stageOther(s, src, w, dir)
	}
}

func (e *Engine) stageDirectory(s *Staged, src *Source, w *Want, dir int) (err error) {
	s.Name, err = e.withTemp(func(name string) error { return layer.Mkdir(s.work, name, 0o700) })
	if err != nil {
		return fail(src, "mkdir", err)
	}
	s.dir = true
	if s.FD, err = layer.Open(s.work, s.Name, unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		return fail(src, "open the new directory", err)
	}
	from := origin{fd: -1, dir: dir, name: src.Name}
	if fd, err := layer.Open(dir, src.Name, unix.O_RDONLY|unix.O_DIRECTORY, 0); err == nil {
		defer unix.Close(fd)
		from.fd = fd
	}
	if err := e.attributes(&target{fd: s.FD}, &from, src, w, ^uint32(0)); err != nil {
		return err
	}
	return s.stat(src)
}

func (e *Engine) stageOther(s *Staged, src *Source, w *Want, dir int) (err error) {
	st := &src.Stat
	mode := uint32(st.Mode) & unix.S_IFMT
	if mode == unix.S_IFLNK {
		link, err := layer.Readlink(dir, src.Name)
		if err != nil {
			return fail(src, "readlink", err)
		}
		s.Name, err = e.withTemp(func(name string) error { return layer.Symlink(link, s.work, name) })
		if err != nil {
			return fail(src, "symlink", err)
		}
	} else {
		dev := int(unix.Mkdev(st.Rdev_major, st.Rdev_minor))
		s.Name, err = e.withTemp(func(name string) error { return layer.Mknod(s.work, name, mode|0o600, dev) })
		if err != nil {
			return fail(src, "mknod", err)
		}
	}
	to := target{fd: -1, dir: s.work, name: s.Name}
	from := origin{fd: -1, dir: dir, name: src.Name}
	if err := e.attributes(&to, &from, src, w, ^uint32(0)); err != nil {
		return err
	}
	return s.stat(src)
}

func (e *Engine) stageRegular(s *Staged, src *Source, w *Want, dir int) (err error) {
	size := int64(src.Stat.Size)
	if w.Size >= 0 {
		size = w.Size
	}
	lower := min(size, int64(src.Stat.Size)) // bytes that are the source's
	metacopy := w.MetaOnly && e.cfg.Metacopy && lower > 0 && !w.truncates(src)

	from := origin{fd: -1, dir: dir, name: src.Name}
	fd := src.FD
	if fd <= 0 {
		if fd, err = layer.Open(dir, src.Name, unix.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			defer unix.Close(fd)
		} else if lower > 0 && !metacopy && src.DataDir == nil {
			return fail(src, "open", err)
		}
	}
	from.fd = fd
	mode := e.firstMode(&src.Stat)
	s.Name, err = e.withTemp(func(name string) (err error) {
		s.FD, err = layer.Open(s.work, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, mode)
		return err
	})
	if err != nil {
		return fail(src, "create in the work directory", err)
	}

	unfinished := false
	switch {
	case metacopy:
		s.Method = MethodMeta
		err = unix.Ftruncate(s.FD, size)
	case lower > 0:
		unfinished, err = e.data(s, src, w, fd, lower)
	}
	if err == nil && size > lower {
		err = unix.Ftruncate(s.FD, size)
	}
	if err != nil {
		return fail(src, "copy data", err)
	}
	if metacopy {
		mark := whiteout.Metacopy{}
		if err := unix.Fsetxattr(s.FD, e.ns.Name("metacopy"), mark.Encode(), 0); err != nil {
			return fail(src, "setxattr metacopy", err)
		}
	}
	if err := e.attributes(&target{fd: s.FD}, &from, src, w, mode); err != nil {
		return err
	}
	if unfinished {
		if err := e.announce(s.work, src.Path); err != nil {
			return fail(src, "leave it unfinished", err)
		}
		s.Partial = true
	}
	if canceled(w.Cancel) { // the last chance before what cannot be interrupted
		return fail(src, "sync", unix.EINTR)
	}
	// As ovl_copy_up_file: what was copied is on disk before the name is, and
	// what was shared or is empty needs no such care.
	if s.event.BytesCopied > 0 && !s.Partial && !e.cfg.Volatile {
		if err := e.Fsync(s.FD, false); err != nil {
			return fail(src, "fsync", err)
		}
	}
	if err := s.stat(src); err != nil || mode == safeMode || uint32(s.Stat.Mode)&0o7777 == mode {
		return err
	}
	// This process has a umask.
	if err := unix.Fchmod(s.FD, uint32(src.Stat.Mode)&0o7777); err != nil {
		return fail(src, "chmod", err)
	}
	return s.stat(src)
}

// data gives the new file the first size bytes of the data of src, whose own
// descriptor is fd (its data may be elsewhere): all of them, or, where that is
// allowed and sharing them is impossible, a record that says where they are, or both.
func (e *Engine) data(s *Staged, src *Source, w *Want, fd int, size int64) (unfinished bool, err error) {
	blocks := src.Stat.Blocks
	if src.DataDir != nil {
		data, st, err := openData(src)
		if err != nil {
			return false, err
		}
		defer unix.Close(data)
		fd, blocks = data, st.Blocks
	}
	c := copier{dst: s.FD, src: fd, pair: e.pairOf(&src.Stat), cancel: w.Cancel, flush: !e.cfg.Volatile}
	if e.cfg.Threshold >= 0 && (w.Range || w.MetaOnly) {
		done, err := c.share(size, int64(src.Stat.Size))
		if done || err != nil {
			s.Method = c.method
			return false, err
		}
		most := e.cfg.Threshold
		if w.MetaOnly {
			most = min(most, metaThreshold)
		}
		if size >= most && e.leave(s, src, fd, size) {
			s.Method = MethodRange
			return true, nil
		}
		// A copy with a record need not wait for the disk: where it did not get
		// there before a crash the lower shows through. Settle syncs many at once.
		unfinished = size < most && e.syncs() && e.leave(s, src, fd, size)
	}
	err = c.whole(size, int64(src.Stat.Size), blocks)
	s.Method = c.method
	s.event.BytesCopied = c.copied
	s.dense = c.copied == size
	if unfinished && c.copied == 0 && err == nil { // nothing but a hole
		unfinished, err = false, unix.Fremovexattr(s.FD, e.recordAttr)
	}
	return unfinished, err
}

// syncs says whether a whole copy has to wait for a disk.
func (e *Engine) syncs() bool { return !e.cfg.Volatile && e.Block() > 0 && !e.probe.memory }

// leave records in the new file that its first size bytes are those of fd, the
// data of src, and gives it that length, before any of them is copied: ext4 and XFS
// would have it on the disk with the data only, later than the name. It reports
// false where that is impossible (the path is too long for an attribute, say): then it is copied.
func (e *Engine) leave(s *Staged, src *Source, fd int, size int64) bool {
	if e.Block() == 0 || size > mostPartial {
		return false
	}
	rec, ok := e.identify(src, fd)
	if !ok || rec.Size < size {
		return false
	}
	if unix.Ftruncate(s.FD, size) != nil {
		return false
	}
	rec.Valid = size
	s.rec = rec
	return unix.Fsetxattr(s.FD, e.recordAttr, rec.Encode(), 0) == nil
}

// openData opens the file that has the data of src.
func openData(src *Source) (int, *unix.Statx_t, error) {
	d, name := src.data()
	dir, err := d.FD()
	if err != nil {
		return -1, nil, err
	}
	defer d.Done()
	fd, err := layer.Open(dir, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, nil, err
	}
	st := new(unix.Statx_t)
	if err := statFD(fd, st); err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, st, nil
}
