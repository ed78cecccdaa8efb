package cow

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// Partial is an upper file that is, or was until a moment ago, unfinished: its
// blocks come from itself where it has them, and from a lower file where it has
// a hole below the valid length. All users of one inode share one Partial.
//
// Its methods may be called from any goroutine. A read waits for no writer; a
// write waits for a write or a completion of the same blocks; Truncate and
// Fallocate wait for the writes that are under way.
//
// Once the file is finished (see Finished) the methods act on the plain file.
type Partial struct {
	e    *Engine
	key  inode
	path string // in the view when it was opened: for messages and events
	refs int    // guarded by Engine.open
	fd   int    // the upper file, read-write
	g    int64  // unit of completion in bytes, a power of two

	era     uint64 // unfinished.era when it was opened
	counted bool   // had a name then

	finished atomic.Bool  // changed with attr held
	valid    atomic.Int64 // Record.Valid; changed with attr held

	ranges  rangeLock
	attr    sync.RWMutex // guards rec and the file's times: shared to write, else exclusive
	rec     Record       // guarded by attr, but what it says of the lower file: that is fixed
	present blockMap
	loading sync.Mutex // held while a section of present is loaded

	filled     atomic.Int64 // bytes copied for changes of the file, see countFilled
	completing sync.Mutex   // one completer; taken before ranges
	cursor     int64        // everything below is present, or a hole of the lower; guarded by completing

	lowMu    sync.Mutex   // guards opening and closing of low
	low      *lowerFile   // guarded by lowMu; nil until needed
	lowIndex atomic.Int32 // Tree.Index of the layer low is in; 0 until it was opened
}

// mostPartial bounds the valid length of an unfinished file, in bytes: 16 TiB, for which the map of blocks takes 8 MiB.
// A file of holes alone can be as long as its filesystem likes, at no cost to whoever made the layer.
const mostPartial = 1 << 44

// inode identifies a file of the upper.
type inode struct{ dev, ino uint64 }

// lowerFile is the open lower file of a Partial. Readers hold a reference while
// they use the descriptor.
type lowerFile struct {
	fd    int
	nlink uint32 // when it was compared with the record
	refs  atomic.Int32
}

func (l *lowerFile) done() {
	if l.refs.Add(-1) == 0 {
		unix.Close(l.fd)
	}
}

// ErrLowerChanged says that the lower file an unfinished file needs is gone or is
// not what it was. It comes together with EIO: nothing was mixed, nothing lost
// that was written, and the file can still be truncated to nothing or removed.
var ErrLowerChanged = errors.New("the lower file it completes has changed")

// OpenPartial returns the Partial of the upper file upperFD, which is open for
// reading and writing and is duplicated. path is for messages. A file without a
// record gives a Partial that is finished. The caller calls Close once.
//
// What a crash in the middle of a truncation left is put right here.
func (e *Engine) OpenPartial(upperFD int, path string) (*Partial, error) {
	var st unix.Statx_t
	if err := statFD(upperFD, &st); err != nil {
		return nil, fmt.Errorf("open unfinished %q: %w", path, err)
	}
	return e.openPartial(upperFD, &st, path, func(p *Partial) error { return p.start(upperFD, &st) })
}

// openPartial returns the Partial of the upper file upperFD, whose attributes are st, and has start set it
// up if there is none yet.
func (e *Engine) openPartial(upperFD int, st *unix.Statx_t, path string, start func(*Partial) error) (*Partial, error) {
	key := inode{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
	e.open.mu.Lock()
	defer e.open.mu.Unlock()
	if p := e.open.files[key]; p != nil {
		p.refs++
		return p, nil
	}
	p := &Partial{e: e, key: key, path: path, refs: 1, fd: -1, era: e.list.era.Load()}
	p.counted = st.Nlink > 0
	if err := start(p); err != nil {
		if p.fd >= 0 {
			unix.Close(p.fd)
		}
		return nil, fmt.Errorf("open unfinished %q: %w", path, err)
	}
	e.open.files[key] = p
	return p, nil
}

func (p *Partial) start(upperFD int, st *unix.Statx_t) error {
	rec, err := p.e.ReadRecord(upperFD, "")
	if errors.Is(err, ErrBadRecord) {
		p.e.cfg.Log("%s: %v", p.path, err)
		return fmt.Errorf("%w: %w", err, unix.EIO)
	}
	if err != nil {
		return err
	}
	return p.begin(upperFD, rec, int64(st.Size))
}

// begin sets p up for an upper file of size bytes with the record rec, nil for none.
func (p *Partial) begin(upperFD int, rec *Record, size int64) (err error) {
	if p.fd, err = unix.FcntlInt(uintptr(upperFD), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		p.fd = -1
		return err
	}
	if rec == nil {
		p.finished.Store(true)
		return nil
	}
	if p.g = p.e.Block(); p.g == 0 {
		p.e.cfg.Log("%s: unfinished, on a filesystem that cannot hold such files", p.path)
		return unix.EIO
	}
	if min(rec.Valid, size) > mostPartial {
		p.e.cfg.Log("%s: an unfinished file of %d bytes is none that was written here", p.path, rec.Valid)
		return unix.EIO
	}
	p.rec = *rec
	p.valid.Store(rec.Valid)
	p.present = newBlockMap(p.blocks(min(rec.Valid, size))) // the rest was cut off behind our back, see below
	if rec.Cut && size > rec.Valid {
		if err := p.firm(rec.Valid); err != nil {
			return err
		}
		if err := ignoringEINTR(func() error { return unix.Ftruncate(p.fd, rec.Valid) }); err != nil {
			return err
		}
	}
	if size < rec.Valid { // somebody cut it behind our back
		if err := p.record(size, true); err != nil {
			return err
		}
	}
	return nil
}

// Close gives back what OpenPartial returned.
func (p *Partial) Close() {
	p.e.open.mu.Lock()
	p.refs--
	last := p.refs == 0
	if last {
		delete(p.e.open.files, p.key)
	}
	p.e.open.mu.Unlock()
	if last {
		p.dropLower()
		unix.Close(p.fd)
	}
}

// Finished says whether the upper file is complete, and has no record any more.
func (p *Partial) Finished() bool { return p.finished.Load() }

// Record returns what is recorded of the lower file at the moment.
func (p *Partial) Record() Record {
	p.attr.RLock()
	defer p.attr.RUnlock()
	return p.rec
}

// Stat is statx(2) of the upper file. Other than statx itself it never sees the
// times in the moment in which a completion has touched them.
func (p *Partial) Stat(st *unix.Statx_t) error {
	p.attr.RLock()
	defer p.attr.RUnlock()
	return statFD(p.fd, st)
}

// Sync is fsync(2), or fdatasync(2), unless Config.Volatile.
func (p *Partial) Sync(datasync bool) error {
	if p.e.cfg.Volatile {
		return nil
	}
	return p.e.Fsync(p.fd, datasync)
}

// record stores another valid length. attr is held for writing, or p is not
// shared yet. On error nothing has changed.
func (p *Partial) record(valid int64, cut bool) error {
	rec := p.rec
	rec.Valid, rec.Cut = valid, cut
	if err := p.e.crash("record"); err != nil {
		return err
	}
	err := p.writable(func() error {
		return unix.Fsetxattr(p.fd, p.e.recordAttr, rec.Encode(), unix.XATTR_REPLACE)
	})
	if err != nil {
		return fmt.Errorf("%q: setxattr record: %w", p.path, err)
	}
	p.rec.Valid, p.rec.Cut = valid, cut // and nothing else: the rest is read without attr
	p.valid.Store(valid)
	return nil
}

// finish takes the record away: the upper file is complete, and, unless no byte
// of it depends on it, on disk. attr is held for writing.
func (p *Partial) finish() error {
	if p.finished.Load() {
		return nil
	}
	if err := p.e.crash("finish"); err != nil {
		return err
	}
	err := p.writable(func() error { return unix.Fremovexattr(p.fd, p.e.recordAttr) })
	if err != nil && err != unix.ENODATA {
		return fmt.Errorf("%q: removexattr record: %w", p.path, err)
	}
	p.finished.Store(true)
	// One without a name may be of an earlier mark, when it was not missed any more.
	if p.counted && p.era == p.e.list.era.Load() {
		p.e.list.count.Add(-1)
	}
	return nil
}

// writable runs f, which changes a user attribute: that is allowed only where the
// mode lets one write, whatever the descriptor was opened for. attr is held for
// writing, so that Stat does not see the mode meanwhile.
func (p *Partial) writable(f func() error) error {
	err := f()
	if err != unix.EACCES {
		return err
	}
	defer p.e.steady.hold(p.key.ino)()
	var st unix.Statx_t
	if err := statFD(p.fd, &st); err != nil {
		return err
	}
	mode := uint32(st.Mode) & 0o7777
	if err := unix.Fchmod(p.fd, mode&^setID|0o600); err != nil {
		return err
	}
	err = f()
	if cerr := unix.Fchmod(p.fd, mode); cerr != nil && err == nil {
		err = cerr
	}
	return err
}

func (p *Partial) floor(off int64) int64   { return off &^ (p.g - 1) }
func (p *Partial) ceil(off int64) int64    { return (off + p.g - 1) &^ (p.g - 1) }
func (p *Partial) blocks(n int64) int64    { return p.ceil(n) / p.g }
func (p *Partial) has(from, to int64) bool { return p.present.all(from/p.g, to/p.g) }

// load makes present speak the truth about the blocks from .. to, both aligned
// and below the valid length rounded up. No lock is held.
func (p *Partial) load(from, to int64) error {
	per := p.g * sectionBlocks
	for i := from / per; i*per < to && i < int64(len(p.present.sections)); i++ {
		if p.present.sections[i].loaded.Load() {
			continue
		}
		if err := p.loadSection(i); err != nil {
			return err
		}
	}
	return nil
}

func (p *Partial) loadSection(i int64) error {
	// While the valid length stands still: a block at the end of the file is
	// present when it has data up to that length.
	p.attr.RLock()
	defer p.attr.RUnlock()
	p.loading.Lock()
	defer p.loading.Unlock()
	s := p.present.sections
	if s[i].loaded.Load() {
		return nil
	}
	valid := p.valid.Load()
	per := p.g * sectionBlocks
	var bare []span // allocated, without data
	asked := false
	for pos, end := i*per, min((i+1)*per, valid); pos < end; {
		data, err := unix.Seek(p.fd, pos, unix.SEEK_DATA)
		if err == unix.ENXIO {
			data, err = int64(len(s))*per, nil
		}
		if err != nil {
			return fmt.Errorf("%q: seek: %w", p.path, err)
		}
		if data >= end {
			// The sections in between have no block either; nobody writes to
			// one before it is loaded.
			for j := i + 1; j < int64(len(s)) && (j+1)*per <= data; j++ {
				s[j].loaded.Store(true)
			}
			break
		}
		hole, err := unix.Seek(p.fd, data, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("%q: seek: %w", p.path, err)
		}
		if !asked {
			if bare, err = unwritten(p.fd, data, end); err != nil {
				return fmt.Errorf("%q: fiemap: %w", p.path, err)
			}
			asked = true
		}
		for _, s := range without(span{data, hole}, bare) {
			from, to := p.ceil(s.from), p.floor(s.to)
			if s.to >= valid {
				to = p.ceil(valid)
			}
			if to = min(to, (i+1)*per); from < to {
				p.present.set(from/p.g, to/p.g)
			}
		}
		pos = hole
	}
	s[i].loaded.Store(true)
	return nil
}

// lower returns the open lower file, with a reference. The first call opens it
// and compares it with the record.
func (p *Partial) lower() (*lowerFile, error) {
	p.lowMu.Lock()
	defer p.lowMu.Unlock()
	if p.low == nil {
		low, err := p.openLower()
		if err != nil {
			return nil, err
		}
		low.refs.Store(1)
		p.low = low
	}
	p.low.refs.Add(1)
	return p.low, nil
}

// dropLower closes the lower file as soon as nobody reads it.
func (p *Partial) dropLower() {
	p.lowMu.Lock()
	defer p.lowMu.Unlock()
	if p.low != nil {
		p.low.done()
		p.low = nil
	}
}

func (p *Partial) openLower() (*lowerFile, error) {
	rec := &p.rec // of what is used here nothing changes
	if p.e.cfg.Resolve == nil {
		return nil, p.changed("no layers are known")
	}
	dir, name, err := p.e.cfg.Resolve(rec)
	if err != nil {
		return nil, p.changed(err.Error())
	}
	dirfd, err := dir.FD()
	if err != nil {
		return nil, p.changed(err.Error())
	}
	defer dir.Done()
	fd, err := layer.Open(dirfd, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		switch err {
		case unix.ENOENT, unix.ELOOP, unix.ENOTDIR, unix.ENXIO, unix.ESTALE:
			return nil, p.changed(err.Error())
		}
		return nil, fmt.Errorf("%q: open lower file %q: %w", p.path, rec.Path, err)
	}
	var st unix.Statx_t
	if why := rec.differs(dir, fd, &st); why != "" {
		unix.Close(fd)
		return nil, p.changed(why)
	}
	p.lowIndex.Store(int32(dir.Tree().Index))
	return &lowerFile{fd: fd, nlink: st.Nlink}, nil
}

// changed makes the error of a lower file that is not what was recorded.
func (p *Partial) changed(why string) error {
	err := fmt.Errorf("%q: %w: %q in %q: %s (%w)", p.path, ErrLowerChanged, p.rec.Path, p.rec.Layer, why, unix.EIO)
	p.e.logOnce(p.key, fmt.Errorf("%w; what was written can be read: bring the layer back, or truncate or remove the file", err))
	return err
}

// readLower fills b with the lower's bytes at off, all of them below its size,
// and makes sure that they are still the recorded file's.
func (p *Partial) readLower(low *lowerFile, b []byte, off int64) error {
	n, err := preadFull(low.fd, b, off)
	if err != nil {
		return fmt.Errorf("%q: read lower file: %w", p.path, err)
	}
	var st unix.Statx_t
	if err := statFD(low.fd, &st); err != nil {
		return fmt.Errorf("%q: stat lower file: %w", p.path, err)
	}
	if n < len(b) || int64(st.Size) != p.rec.Size || timeOf(st.Mtime) != p.rec.Mtime {
		return p.changed("it was written to")
	}
	// A modification time can be set back. But a layer that is being removed takes names
	// away from a file that is still what it was.
	if timeOf(st.Ctime) != p.rec.Ctime && st.Nlink == low.nlink {
		return p.changed("its change time changed")
	}
	return nil
}
