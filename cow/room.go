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
	need := p.valid.Load() - int64(st.Blocks)*512
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
	low, err := p.lower()
	if err != nil {
		return nil // whoever copies meets it
	}
	err = statFD(low.fd, &st)
	low.done()
	if need = min(need, int64(st.Blocks)*512); err != nil || need/int64(unit) < int64(free) {
		return nil
	}
	return fmt.Errorf("it needs %d MiB, of which there are %d: %w", (need+1<<20-1)>>20, int64(free)*int64(unit)>>20, unix.ENOSPC)
}
