package cow

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// fillBuffer is how many bytes are completed at once: readers of the file do not
// notice, writers to the same blocks wait for that long.
const fillBuffer = 256 << 10

var fillBuffers = sync.Pool{New: func() any { b := make([]byte, fillBuffer); return &b }}

// ReadAt reads into b at off as pread(2): fewer bytes only at the end of the
// file, and then without an error.
func (p *Partial) ReadAt(b []byte, off int64) (int, error) {
	done := 0
	for done < len(b) {
		at, want := off+int64(done), int64(len(b)-done)
		upper, n, err := p.where(at, want)
		if err != nil {
			return done, err
		}
		part := b[done : int64(done)+n]
		if upper {
			m, err := preadFull(p.fd, part, at)
			done += m
			if err != nil || m < len(part) {
				return done, err
			}
			continue
		}
		low, err := p.lower()
		if err != nil {
			return done, err
		}
		err = p.readLower(low, part, at)
		low.done()
		if err != nil {
			return done, err
		}
		done += len(part)
	}
	return done, nil
}

// where says whether the bytes at off come from the upper or the lower file, and
// for how many of the next n bytes that is so.
func (p *Partial) where(off, n int64) (upper bool, run int64, err error) {
	valid := p.valid.Load()
	if p.finished.Load() || off >= valid {
		return true, n, nil
	}
	end := min(off+n, valid)
	if err := p.load(p.floor(off), p.ceil(end)); err != nil {
		return false, 0, err
	}
	upper, next := p.present.run(off/p.g, p.ceil(end)/p.g)
	to := min(next*p.g, off+n)
	if !upper || next*p.g < p.ceil(end) {
		to = min(to, valid)
	} else if end == valid {
		to = off + n // and on into what is the upper's anyway
	}
	return upper, to - off, nil
}

// Source returns an open descriptor, and for how many of the next n bytes at off
// (n > 0) the file's bytes are those of that descriptor at the same offset: for
// copy_file_range(2) and the like. release ends its use. At the file's end the
// descriptor has fewer bytes than it says.
func (p *Partial) Source(off, n int64) (fd int, run int64, release func(), err error) {
	upper, run, err := p.where(off, n)
	if err != nil {
		return -1, 0, nil, err
	}
	if upper {
		return p.fd, run, func() {}, nil
	}
	low, err := p.lower()
	if err != nil {
		return -1, 0, nil, err
	}
	if err := p.readLower(low, nil, off); err != nil {
		low.done()
		return -1, 0, nil, err
	}
	return low.fd, run, low.done, nil
}

// WriteAt writes b at off as pwrite(2), but whole or not at all as far as the
// filesystem allows. Blocks that b covers in part are completed first, so that a
// block that is present is always whole.
func (p *Partial) WriteAt(b []byte, off int64) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	end := off + int64(len(b))
	if valid := p.valid.Load(); end > valid {
		if err := p.firm(valid); err != nil {
			return 0, err
		}
	}
	lo, hi := p.floor(off), p.ceil(end)
	if hi = min(hi, p.ceil(p.valid.Load())); lo < hi && !p.finished.Load() {
		if err := p.load(lo, hi); err != nil {
			return 0, err
		}
		if !p.has(lo, hi) {
			p.ranges.lock(lo, hi)
			defer p.ranges.unlock(lo, hi)
		}
	}
	p.attr.RLock()
	defer p.attr.RUnlock()
	for p.rec.Cut && end > p.rec.Valid && !p.finished.Load() {
		p.attr.RUnlock()
		err := p.uncut()
		p.attr.RLock()
		if err != nil {
			return 0, err
		}
	}
	if p.finished.Load() {
		return pwriteCount(p.fd, b, off)
	}
	valid := p.rec.Valid
	hi = min(hi, p.ceil(valid)) // the valid length may have come down
	if lo >= hi || p.has(lo, hi) {
		return pwriteCount(p.fd, b, off)
	}
	// Of the blocks covered in part, what counts in them is below valid.
	if off > lo || min(end, lo+p.g) < min(valid, lo+p.g) {
		if err := p.fillBlock(lo, valid); err != nil {
			return 0, err
		}
	}
	if last := hi - p.g; last > lo && end < min(valid, hi) {
		if err := p.fillBlock(last, valid); err != nil {
			return 0, err
		}
	}
	n, err := pwriteCount(p.fd, b, off)
	// After a short write the blocks that it covered, and no others, are present.
	written := hi
	if n < len(b) {
		written = p.floor(off + int64(n))
		if cut := off + int64(n); cut > written && written < hi && !p.present.get(written/p.g) {
			p.mend(written, cut, valid)
		}
	}
	if from := p.ceil(off); n > 0 && from < min(written, hi) {
		p.present.set(from/p.g, min(written, hi)/p.g)
	}
	return n, err
}

// mend deals with a block that a failed write has left half written: it is
// completed from the lower, or becomes a hole again. attr and the block are held.
func (p *Partial) mend(block, from, valid int64) {
	to := min(block+p.g, valid)
	if from < to {
		buf := make([]byte, to-from)
		low, err := p.lower()
		if err == nil {
			err = p.readLower(low, buf, from)
			low.done()
		}
		if err == nil {
			err = pwriteFull(p.fd, buf, from)
		}
		if err != nil {
			_ = unix.Fallocate(p.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, block, p.g)
			return
		}
	}
	p.present.set(block/p.g, block/p.g+1)
}

// fillBlock completes one block from the lower, in a single write, if it is
// absent. The block is held, and attr for reading.
func (p *Partial) fillBlock(block, valid int64) error {
	if p.present.get(block / p.g) {
		return nil
	}
	bp := fillBuffers.Get().(*[]byte)
	defer fillBuffers.Put(bp)
	n := min(p.g, valid-block)
	buf := *bp
	if n > int64(len(buf)) {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	low, err := p.lower()
	if err != nil {
		return err
	}
	err = p.readLower(low, buf, block)
	low.done()
	if err != nil {
		return err
	}
	if err := pwriteFull(p.fd, buf, block); err != nil {
		_ = unix.Fallocate(p.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, block, p.g)
		return fmt.Errorf("%q: complete a block: %w", p.path, err)
	}
	p.countFilled(n)
	p.present.set(block/p.g, block/p.g+1)
	return nil
}

// countFilled counts what somebody's change made necessary to copy.
func (p *Partial) countFilled(n int64) {
	p.filled.Add(n)
	p.e.bus.filled.Add(n)
}

// uncut forgets that a truncation was under way: it has ended, and the file is
// about to grow. No lock but the range's is held.
func (p *Partial) uncut() error {
	p.attr.Lock()
	defer p.attr.Unlock()
	if p.finished.Load() || !p.rec.Cut {
		return nil
	}
	return p.record(p.rec.Valid, false)
}

// pwriteCount writes all of b and returns how many bytes it did.
func pwriteCount(fd int, b []byte, off int64) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Pwrite(fd, b[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			if done > 0 {
				return done, nil // as write(2): the error comes with the next one
			}
			return 0, err
		}
		if n == 0 {
			return done, unix.EIO
		}
		done += n
	}
	return done, nil
}
