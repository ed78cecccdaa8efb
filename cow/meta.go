package cow

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// CompleteMeta gives a metadata-only file of the upper its data and removes the
// metacopy mark, as ovl_copy_up_meta_inode_data: in place, so that descriptors
// and links stay what they are. upperFD is open read-write; src says where the
// data is; of w, Cause, PID, Asked, Wait and Cancel count. A crash before the
// mark is gone leaves a metadata-only file. On error (EINTR when canceled) the
// file is as it was, apart from data that nobody reads.
//
// The caller serialises it against writers of the same file.
func (e *Engine) CompleteMeta(upperFD int, src *Source, w *Want) error {
	start := time.Now()
	ev := Event{Path: src.Path, Cause: w.Cause, PID: w.PID, BytesAsked: w.Asked, Wait: w.Wait,
		FileBytes: int64(src.Stat.Size), Method: MethodNone}
	if t := src.Dir.Tree(); t != nil {
		ev.Layer, ev.LayerIndex = t.Path, t.Index
	}
	err := e.completeMeta(upperFD, src, w, &ev)
	ev.Time, ev.Copy = time.Now(), time.Since(start)
	if err != nil {
		ev.Err = errnoText(err)
	}
	e.bus.Publish(ev)
	return err
}

func (e *Engine) completeMeta(upperFD int, src *Source, w *Want, ev *Event) error {
	var st unix.Statx_t
	if err := statFD(upperFD, &st); err != nil {
		return fail(src, "stat the upper file", err)
	}
	data, dst, err := openData(src)
	if err != nil {
		return fail(src, "open the data", err)
	}
	defer unix.Close(data)
	if dst.Mode&unix.S_IFMT != unix.S_IFREG {
		return fail(src, "its data is no regular file", unix.EIO)
	}
	// The kernel trusts the size of the metadata-only file, not the data's.
	c := copier{dst: upperFD, src: data, pair: e.pairOf(dst), cancel: w.Cancel, flush: !e.cfg.Volatile}
	c.around = func(change func() error) error {
		defer e.steady.hold(st.Ino)()
		var now unix.Statx_t
		if err := statFD(upperFD, &now); err != nil {
			return err
		}
		return preserving(upperFD, &now, change)
	}
	err = c.whole(int64(st.Size), int64(dst.Size), dst.Blocks)
	ev.Method, ev.BytesCopied = c.method, c.copied
	if err != nil {
		return fail(src, "copy data", err)
	}
	if c.copied > 0 && !e.cfg.Volatile {
		if err := e.Fsync(upperFD, false); err != nil {
			return fail(src, "fsync", err)
		}
	}
	for _, key := range [...]string{"metacopy"} {
		if err := unix.Fremovexattr(upperFD, e.ns.Name(key)); err != nil && err != unix.ENODATA {
			return fail(src, "remove the "+key+" mark", err)
		}
	}
	if err := statFD(upperFD, &st); err == nil {
		ev.UpperBytes = int64(st.Blocks) * 512
	}
	return nil
}

// preserving runs f, which writes to fd, and puts back what a write takes away:
// capability, set-id bits and times, as they are in st.
func preserving(fd int, st *unix.Statx_t, f func() error) error {
	caps, err := fgetxattr(fd, capability)
	if err != nil {
		caps = nil
	}
	err = f()
	if len(caps) > 0 {
		if e := unix.Fsetxattr(fd, capability, caps, 0); e != nil && err == nil {
			err = fmt.Errorf("restore the capability: %w", e)
		}
	}
	if st.Mode&setID != 0 {
		if e := unix.Fchmod(fd, uint32(st.Mode)&0o7777); e != nil && err == nil {
			err = fmt.Errorf("restore the mode: %w", e)
		}
	}
	ts := [2]unix.Timespec{timespec(st.Atime), timespec(st.Mtime)}
	if e := futimens(fd, &ts); e != nil && err == nil {
		err = fmt.Errorf("restore the times: %w", e)
	}
	return err
}
