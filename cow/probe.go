package cow

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// minBlock is the least unit in bytes in which a file is completed: the page of
// the page cache.
const minBlock = 4096

// Block returns the unit in bytes in which this upper tells data from holes, and
// zero when it does not do so reliably: then every file is copied whole. The first
// call tries it with a file in the work directory.
func (e *Engine) Block() int64 {
	e.probe.once.Do(func() {
		block, why := e.probeHoles()
		if why != "" {
			e.cfg.Log("copy-up by range is off, files are copied whole: %s", why)
			block = 0
		}
		e.probe.block = block
	})
	return e.probe.block
}

// Prepare lets the first call of Block, which waits for the disk, happen in the background. Close
// waits for it.
func (e *Engine) Prepare() { e.probe.under.Go(func() { e.Block() }) }

// probeHoles finds out whether the upper's own extent map can be the record of
// which blocks are present: a block written with zeros must be data, and the
// blocks around it must stay holes, also when they have been read or synced.
// (A file with an XFS extent size hint, or on a tmpfs with huge pages, fails.)
func (e *Engine) probeHoles() (block int64, why string) {
	dir, err := e.work.FD()
	if err != nil {
		return 0, err.Error()
	}
	defer e.work.Done()
	var fs unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Fstatfs(dir, &fs) }); err != nil {
		return 0, "statfs: " + err.Error()
	}
	e.probe.memory = fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC
	block = max(minBlock, int64(fs.Bsize))
	if block > 1<<20 || block&(block-1) != 0 {
		return 0, "unusual block size " + strconv.FormatInt(block, 10)
	}
	if fs.Type == unix.TMPFS_MAGIC && hugeTmpfs(dir) {
		return 0, "a tmpfs with huge pages fills holes by itself"
	}

	var fd int
	name, err := e.withTemp(func(name string) (err error) {
		fd, err = layer.Open(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
		return err
	})
	if err != nil {
		return 0, "cannot make a file in the work directory: " + err.Error()
	}
	defer unix.Close(fd)
	defer func() { _ = layer.Unlink(dir, name) }() // else CleanWork does

	// Three megabytes in: behind the first huge page, and not aligned to one.
	at := int64(3<<20) + 5*block
	size := at + 64*block
	if err := unix.Ftruncate(fd, size); err != nil {
		return 0, "cannot make a sparse file: " + err.Error()
	}
	if err := pwriteFull(fd, make([]byte, block), at); err != nil {
		return 0, "write: " + err.Error()
	}
	exact := func() bool {
		data, err := unix.Seek(fd, 0, unix.SEEK_DATA)
		if err != nil || data != at {
			return false
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil || hole != at+block {
			return false
		}
		_, err = unix.Seek(fd, hole, unix.SEEK_DATA)
		return err == unix.ENXIO
	}
	if !exact() {
		return 0, "the upper filesystem does not tell written zeros from holes"
	}
	buf := make([]byte, 32*block)
	if _, err := preadFull(fd, buf, at-16*block); err != nil {
		return 0, "read: " + err.Error()
	}
	// Written back, zeros may turn into a hole; a block that is only allocated
	// looks like data once it was read.
	if err := ignoringEINTR(func() error {
		return unix.SyncFileRange(fd, at, block, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	}); err != nil {
		return 0, "write back: " + err.Error()
	}
	if !exact() {
		return 0, "the upper filesystem does not keep written zeros apart from holes"
	}
	const keep = unix.FALLOC_FL_KEEP_SIZE
	knows := func(mode uint32) bool {
		return ignoringEINTR(func() error { return unix.Fallocate(fd, mode|keep, at, block) }) == nil
	}
	e.probe.punches, e.probe.zeroes = knows(unix.FALLOC_FL_PUNCH_HOLE), knows(unix.FALLOC_FL_ZERO_RANGE)
	return block, ""
}

// hugeTmpfs says whether the tmpfs of dir may use huge pages, which appear as
// data as a whole. The kernel's background collapse of small pages into huge
// ones fills holes too, and follows the same settings.
func hugeTmpfs(dir int) bool {
	if b, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/shmem_enabled"); err == nil &&
		strings.Contains(string(b), "[force]") {
		return true
	}
	var st unix.Statx_t
	if statFD(dir, &st) != nil {
		return true
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return true
	}
	dev := strconv.Itoa(int(st.Dev_major)) + ":" + strconv.Itoa(int(st.Dev_minor))
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 5 || f[2] != dev {
			continue
		}
		for o := range strings.SplitSeq(f[len(f)-1], ",") {
			if v, ok := strings.CutPrefix(o, "huge="); ok && v != "never" {
				return true
			}
		}
	}
	return false
}
