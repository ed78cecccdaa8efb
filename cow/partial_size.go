package cow

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Truncate is ftruncate(2). What is cut off stops counting in the record first:
// a crash in between is noticed when the file is opened next, and the cut made.
func (p *Partial) Truncate(size int64) error {
	if size < 0 {
		return unix.EINVAL
	}
	if err := p.firm(min(size, p.valid.Load())); err != nil {
		return err
	}
	p.attr.Lock()
	defer p.attr.Unlock()
	if !p.finished.Load() {
		valid := p.rec.Valid
		if size < valid {
			if err := p.record(size, true); err != nil {
				return err
			}
		} else if size > valid && p.rec.Cut {
			if err := p.record(valid, false); err != nil {
				return err
			}
		}
		if err := p.e.crash("truncate"); err != nil {
			return err
		}
	}
	if err := ignoringEINTR(func() error { return unix.Ftruncate(p.fd, size) }); err != nil {
		return err
	}
	if size == 0 {
		return p.finish() // nothing of the lower is left
	}
	return nil
}

// firm completes the block that at is inside of, before the file's end moves to
// or away from there: a filesystem may zero the rest of such a block, and make data
// of a hole thereby (btrfs_truncate_block).
func (p *Partial) firm(at int64) error {
	if p.finished.Load() || at&(p.g-1) == 0 || at > p.valid.Load() {
		return nil
	}
	return p.complete(p.floor(at), at, true, nil)
}

// Fallocate is fallocate(2). Below the valid length a hole would show the lower
// file, so that there space is allocated by completing it, a punched hole is
// written as zeros, and what shifts data completes the whole file first. That may be
// much: it ends with EINTR when cancel is closed, and the file reads as before.
func (p *Partial) Fallocate(mode uint32, off, length int64, cancel <-chan struct{}) error {
	if off < 0 || length <= 0 || off+length < 0 {
		return unix.EINVAL
	}
	const punch, zero = unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE
	const shift = unix.FALLOC_FL_COLLAPSE_RANGE | unix.FALLOC_FL_INSERT_RANGE
	end := off + length
	switch {
	case p.finished.Load():
	case mode&shift != 0:
		if _, err := p.Complete(0, cancel); err != nil {
			return err
		}
	case mode&(punch|zero) != 0:
		return p.zero(mode, off, end, cancel)
	default:
		if off < p.ceil(p.valid.Load()) {
			if err := p.roomWithin(p.floor(off), end); err != nil {
				return err
			}
			if err := p.complete(p.floor(off), end, true, cancel); err != nil {
				return err
			}
		}
	}
	return p.fallocate(mode, off, end)
}

// fallocate acts on the upper file itself.
func (p *Partial) fallocate(mode uint32, off, end int64) error {
	if err := p.firm(p.valid.Load()); err != nil {
		return err
	}
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		if err := p.uncut(); err != nil {
			return err
		}
	}
	p.attr.RLock()
	defer p.attr.RUnlock()
	return ignoringEINTR(func() error { return unix.Fallocate(p.fd, mode, off, end-off) })
}

// zero makes the bytes off .. end read as zeros. It is refused where the upper's filesystem refuses that for its
// own files, before anything is lost.
func (p *Partial) zero(mode uint32, off, end int64, cancel <-chan struct{}) error {
	if mode&unix.FALLOC_FL_ZERO_RANGE != 0 && !p.e.probe.zeroes || mode&unix.FALLOC_FL_PUNCH_HOLE != 0 && !p.e.probe.punches {
		return unix.EOPNOTSUPP
	}
	valid := p.valid.Load()
	// Where part of a block stays, it must not become allocated without data.
	if err := p.firm(min(off, valid)); err != nil {
		return err
	}
	if end < valid {
		if done, err := p.writeZeros(off, end, cancel); done || err != nil {
			return err
		}
	}
	// From off on nothing of the lower is left: holes are holes there.
	p.attr.Lock()
	if !p.finished.Load() && off < p.rec.Valid {
		if err := p.record(off, false); err != nil {
			p.attr.Unlock()
			return err
		}
		if off == 0 {
			if err := p.finish(); err != nil {
				p.attr.Unlock()
				return err
			}
		}
	}
	p.attr.Unlock()
	return p.fallocate(mode, off, end)
}

// writeZeros writes zeros from .. to, below the valid length. It reports false,
// having done less, when the valid length came down meanwhile.
func (p *Partial) writeZeros(from, to int64, cancel <-chan struct{}) (bool, error) {
	buf := make([]byte, min(to-from, 1<<20))
	for from < to {
		if to > p.valid.Load() {
			return false, nil
		}
		if canceled(cancel) { // what has been zeroed stays so: asking again goes on
			return false, unix.EINTR
		}
		n, err := p.WriteAt(buf[:min(to-from, int64(len(buf)))], from)
		if err != nil {
			return false, fmt.Errorf("write a hole as zeros: %w", err)
		}
		from += int64(n)
	}
	return true, nil
}
