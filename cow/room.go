package cow

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// roomFrom is how many missing bytes are worth the question whether there is room for them.
const roomFrom = 1 << 20

// room fails with ENOSPC, before a byte is copied, where the upper has no room for what the file still needs. Filled up
// to the last block the disk would keep everybody else from writing, and the file would be as unfinished as before.
func (p *Partial) room() error {
	var st unix.Statx_t
	if p.finished.Load() || statFD(p.fd, &st) != nil {
		return nil
	}
	return p.roomFor(p.valid.Load()-int64(st.Blocks)*512, true)
}

// roomWithin is room for what is missing between from and to, holes of the lower with it.
func (p *Partial) roomWithin(from, to int64) error {
	if to = min(p.ceil(to), p.ceil(p.valid.Load())); to-from < roomFrom || p.finished.Load() {
		return nil
	}
	if err := p.load(from, to); err != nil {
		return err
	}
	var need int64
	for k, end := from/p.g, to/p.g; k < end; {
		present, next := p.present.run(k, end)
		if !present {
			need += (next - k) * p.g
		}
		k = next
	}
	return p.roomFor(need, false)
}

// roomFor fails unless there is room for so many bytes, or, with data, for what the lower has of them.
func (p *Partial) roomFor(need int64, data bool) error {
	if need < roomFrom {
		return nil
	}
	var fs unix.Statfs_t
	if ignoringEINTR(func() error { return unix.Fstatfs(p.fd, &fs) }) != nil || fs.Blocks == 0 {
		return nil // it does not tell, or has no end
	}
	free := fs.Bavail
	if p.e.uid == 0 {
		free = fs.Bfree
	}
	unit := fs.Frsize
	if unit <= 0 {
		unit = fs.Bsize
	}
	if need/int64(unit) < int64(free) {
		return nil
	}
	if data {
		low, err := p.lower()
		if err != nil {
			return nil // whoever copies meets it
		}
		var st unix.Statx_t
		err = statFD(low.fd, &st)
		low.done()
		if need = min(need, int64(st.Blocks)*512); err != nil || need/int64(unit) < int64(free) {
			return nil
		}
	}
	return fmt.Errorf("it needs %d MiB, of which there are %d: %w", (need+1<<20-1)>>20, int64(free)*int64(unit)>>20, unix.ENOSPC)
}
