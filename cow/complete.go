package cow

import (
	"time"

	"golang.org/x/sys/unix"
)

// Complete copies what the file still needs from the lower, up to about budget
// bytes (0 or less: all), and reports whether the file is finished then. The data
// is on disk before the record goes, unless Config.Volatile. It may run beside
// readers and writers of the file: readers do not notice, writers wait for at most
// fillBuffer bytes. The error is EINTR when cancel was closed; what was copied
// until then stays.
func (p *Partial) Complete(budget int64, cancel <-chan struct{}) (finished bool, err error) {
	if p.finished.Load() {
		return true, nil
	}
	start := time.Now()
	p.completing.Lock()
	defer p.completing.Unlock()
	if err := p.room(); err != nil && budget <= 0 {
		return false, err
	}
	full, copied, err := p.fill(budget, cancel)
	if full && err == nil {
		if err = p.Sync(true); err == nil {
			err = p.seal()
		}
	}
	if copied > 0 || full || err != nil {
		p.publish(copied, start, err)
	}
	return p.finished.Load(), err
}

// publish reports a completion.
func (p *Partial) publish(copied int64, start time.Time, err error) {
	rec := p.Record()
	ev := Event{Time: time.Now(), Path: p.path, Layer: rec.Layer, LayerIndex: int(p.lowIndex.Load()), Method: MethodNone, Cause: CauseComplete,
		BytesCopied: copied, FileBytes: rec.Size, Copy: time.Since(start)}
	if copied > 0 {
		ev.Method = MethodLoop
	}
	var st unix.Statx_t
	if statFD(p.fd, &st) == nil {
		ev.UpperBytes = int64(st.Blocks) * 512
	}
	if err != nil {
		ev.Err = errnoText(err)
	}
	p.e.bus.Publish(ev)
}

// seal finishes a file that is filled and whose data is on disk. completing is held.
func (p *Partial) seal() error {
	p.attr.Lock()
	defer p.attr.Unlock()
	return p.finish()
}

// fill copies from the cursor on. completing is held. full says that nothing is
// missing any more: holes that are left are holes of the lower too.
func (p *Partial) fill(budget int64, cancel <-chan struct{}) (full bool, copied int64, err error) {
	if p.valid.Load()-p.cursor >= longCopy {
		defer givingWay()()
	}
	for {
		valid := p.valid.Load()
		if p.finished.Load() || p.cursor >= valid {
			return true, copied, nil
		}
		if canceled(cancel) {
			return false, copied, unix.EINTR
		}
		if budget > 0 && copied >= budget {
			return false, copied, nil
		}
		to := min(p.cursor+fillStep, p.ceil(valid))
		n, next, err := p.step(p.cursor, to, false)
		copied += n
		if err != nil {
			return false, copied, err
		}
		if n > 0 && !p.e.cfg.Volatile {
			// Only a hint: its failure changes nothing.
			_ = unix.SyncFileRange(p.fd, p.cursor, next-p.cursor, unix.SYNC_FILE_RANGE_WRITE)
		}
		p.cursor = next
	}
}

// fillStep is how far one step looks: over holes and present blocks quickly.
const fillStep = 64 << 20

// complete makes the blocks from .. to (rounded up, and as far as they are below
// the valid length) present; with holes those that are holes of the lower too. It ends
// with EINTR when cancel is closed. What it copies is part of the change it was needed for.
func (p *Partial) complete(from, to int64, holes bool, cancel <-chan struct{}) error {
	for from < min(p.ceil(to), p.ceil(p.valid.Load())) && !p.finished.Load() {
		if canceled(cancel) {
			return unix.EINTR
		}
		n, next, err := p.step(from, min(p.ceil(to), p.ceil(p.valid.Load())), holes)
		p.countFilled(n)
		if err != nil {
			return err
		}
		from = next
	}
	return nil
}

// step finds the first stretch from .. to, both aligned, that is absent and
// needed, copies at most fillBuffer bytes of it, and returns how many and how far
// all is well then.
func (p *Partial) step(from, to int64, holes bool) (copied, next int64, err error) {
	if err := p.load(from, to); err != nil {
		return 0, from, err
	}
	present, nextBlock := p.present.run(from/p.g, to/p.g)
	if present {
		return 0, nextBlock * p.g, nil
	}
	to = nextBlock * p.g
	low, err := p.lower()
	if err != nil {
		return 0, from, err
	}
	defer low.done()
	if !holes {
		data, end, err := stretch(low.fd, from, to)
		if err != nil {
			return 0, from, err
		}
		if !data {
			if end = p.floor(end); end > from {
				return 0, end, nil
			}
			// Data begins within this block.
			end = from + p.g
		}
		to = min(to, p.ceil(end))
	}
	bp := fillBuffers.Get().(*[]byte)
	defer fillBuffers.Put(bp)
	buf := *bp
	if p.g > int64(len(buf)) {
		buf = make([]byte, p.g)
	}
	to = min(to, from+int64(len(buf)))
	n, err := p.copyBlocks(low, buf, from, to)
	return n, to, err
}

// copyBlocks copies those of the blocks from .. to that are absent.
func (p *Partial) copyBlocks(low *lowerFile, buf []byte, from, to int64) (copied int64, err error) {
	p.ranges.lock(from, to)
	defer p.ranges.unlock(from, to)
	for pos := from; pos < to; {
		present, next := p.present.run(pos/p.g, to/p.g)
		end := next * p.g
		if !present {
			valid := p.valid.Load()
			if pos >= valid {
				break
			}
			b := buf[:min(end, valid)-pos]
			if err := p.readLower(low, b, pos); err != nil {
				return copied, err
			}
			n, err := p.put(b, pos)
			copied += n
			if err != nil {
				return copied, err
			}
		}
		pos = end
	}
	return copied, nil
}

// put writes completed blocks in the name of nobody: times, capability and
// set-id bits stay what they are. The blocks are held and absent.
func (p *Partial) put(b []byte, off int64) (int64, error) {
	p.attr.Lock()
	defer p.attr.Unlock()
	if n := p.rec.Valid - off; p.finished.Load() || n <= 0 {
		return 0, nil
	} else if n < int64(len(b)) {
		b = b[:n]
	}
	if err := p.e.crash("put"); err != nil {
		return 0, err
	}
	defer p.e.steady.hold(p.key.ino)()
	var st unix.Statx_t
	if err := statFD(p.fd, &st); err != nil {
		return 0, err
	}
	err := preserving(p.fd, &st, func() error { return pwriteFull(p.fd, b, off) })
	if err != nil {
		// A block that is half written must not be taken for one that is whole.
		_ = unix.Fallocate(p.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, p.ceil(off+int64(len(b)))-off)
		return 0, err
	}
	p.present.set(off/p.g, p.ceil(off+int64(len(b)))/p.g)
	return int64(len(b)), nil
}
