package cow

import (
	"errors"
	"fmt"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// A batch is synced and sealed together: so many files, or so many bytes.
const (
	batchFiles = 256
	batchBytes = 64 << 20
	// pieceBytes is how much of one file is copied between two reports of progress.
	pieceBytes = 4 << 20
)

// SettleOptions say how Settle works. The zero value settles everything.
type SettleOptions struct {
	Budget int64           // about how many bytes to copy at most; 0 for no limit
	Cancel <-chan struct{} // ends with EINTR; what is finished stays so
	// Pace, if it is not nil, is called when the budget is spent, instead of ending. It may
	// take its time: nobody waits for a file meanwhile, but a second Settle. Then
	// there is a new budget.
	Pace func() error
	// Progress is told how many bytes of the unfinished files are done with, and of how many.
	// With it the files are counted first. May be nil.
	Progress func(done, total int64)
}

// Settle completes unfinished files, in batches with one sync each, and takes the
// mark away when none is left and none was made meanwhile. It returns how many it
// had to leave, for each of which a line was logged, or because the budget was spent;
// -1 when it does not know. Files removed meanwhile, even the whole upper, are no error.
// It may run beside everything else; a second Settle waits for the first.
func (e *Engine) Settle(o SettleOptions) (left int, err error) {
	e.settling.Lock()
	defer e.settling.Unlock()
	if !e.Marked() {
		return 0, nil
	}
	s := settler{e: e, o: o}
	defer s.drop()
	hints, seq, err := e.hints()
	if err != nil {
		return -1, err
	}
	walk := hints == nil
	if o.Progress != nil {
		if _, s.total, err = e.count(hints, walk, o.Cancel); err != nil {
			return -1, err
		}
		o.Progress(0, s.total)
	}
	for _, p := range hints {
		if err := s.hint(p); err != nil {
			return -1, s.ended(err)
		}
	}
	if err := s.flush(); err != nil {
		return -1, err
	}
	// A file is not where it got its first name, or it was removed.
	if walk || e.list.count.Load() > int64(s.left) {
		if e.cfg.Upper == nil {
			return -1, nil
		}
		s.left = 0 // those are met again
		if err := e.walk(o.Cancel, s.file); err != nil {
			return -1, s.ended(err)
		}
		if err := s.flush(); err != nil {
			return -1, err
		}
	}
	if s.left > 0 {
		return s.left, nil
	}
	return 0, e.removeMark(seq)
}

// ClearMark takes the mark away if no file is unfinished, without completing any. Call it when nobody
// uses the upper any more.
func (e *Engine) ClearMark() error {
	e.settling.Lock()
	defer e.settling.Unlock()
	if !e.Marked() || e.cfg.Upper == nil {
		return nil
	}
	hints, seq, err := e.hints()
	if err != nil {
		return err
	}
	unfinished := func(dir int, name, _ string) error {
		rec, err := e.ReadRecord(dir, name)
		if rec != nil || vanished(err) != nil {
			return errUnfinished
		}
		return nil
	}
	var d hintDir
	defer d.close()
	for _, p := range hints {
		if dir, name, err := d.find(e, p); err == nil && unfinished(dir, name, p) != nil {
			return nil
		}
	}
	if hints == nil || e.list.count.Load() > 0 { // moved, perhaps, or removed
		if err := e.walk(nil, unfinished); err != nil {
			if err == errUnfinished {
				err = nil
			}
			return err
		}
	}
	return e.removeMark(seq)
}

var (
	errSpent      = errors.New("budget spent")
	errUnfinished = errors.New("a file is unfinished")
)

// settler is one run of Settle.
type settler struct {
	e           *Engine
	o           SettleOptions
	batch       []*Partial        // filled, completing held; to be synced and sealed
	holds       map[*Partial]bool // those in batch
	bytes       int64             // copied in this batch
	copied      int64             // of the budget
	done, total int64
	left        int
	dirs        hintDir
}

// hintDir opens directories of the upper by their paths, and keeps the last.
type hintDir struct {
	path string
	fd   int
	have bool
}

func (d *hintDir) close() {
	if d.have {
		unix.Close(d.fd)
	}
	d.have = false
}

// ended makes no error of a spent budget; what was filled is sealed.
func (s *settler) ended(err error) error {
	if ferr := s.flush(); ferr != nil {
		return ferr
	}
	if errors.Is(err, errSpent) {
		return nil
	}
	return err
}

func (s *settler) drop() {
	for _, p := range s.batch {
		p.completing.Unlock()
		p.Close()
	}
	s.batch = nil
	s.dirs.close()
}

// hint settles the file at p, if that is still there.
func (s *settler) hint(p string) error {
	if canceled(s.o.Cancel) {
		return unix.EINTR
	}
	dir, name, err := s.dirs.find(s.e, p)
	if err != nil {
		return vanished(err)
	}
	return s.file(dir, name, p)
}

// find returns the directory and the name of the regular file at p in the upper. The
// directory is good until the next call.
func (d *hintDir) find(e *Engine, p string) (dir int, name string, err error) {
	if e.cfg.Upper == nil || !validPath(p) {
		return -1, "", unix.ENOENT
	}
	parent, name := path.Split(p)
	if !d.have || d.path != parent {
		fd, err := e.openDir(parent)
		if err != nil {
			return -1, "", err
		}
		d.close()
		d.fd, d.path, d.have = fd, parent, true
	}
	var st unix.Statx_t
	if err := layer.Stat(d.fd, name, &st); err != nil {
		return -1, "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, "", unix.ENOENT
	}
	return d.fd, name, nil
}

// openDir opens a directory of the upper by its path, name by name.
func (e *Engine) openDir(dir string) (int, error) {
	root, err := e.cfg.Upper.FD()
	if err != nil {
		return -1, err
	}
	defer e.cfg.Upper.Done()
	fd, err := layer.Open(root, "", unix.O_PATH|unix.O_DIRECTORY, 0)
	for err == nil && dir != "" {
		name := dir
		for i := range dir {
			if dir[i] == '/' {
				name, dir = dir[:i], dir[i+1:]
				break
			}
		}
		var next int
		next, err = layer.Open(fd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		unix.Close(fd)
		fd = next
	}
	return fd, err
}

// count returns how many unfinished files there are, and how many bytes of theirs count.
// hints are where they are; with walk the whole upper is read.
func (e *Engine) count(hints []string, walk bool, cancel <-chan struct{}) (files int, bytes int64, err error) {
	add := func(dir int, name, _ string) error {
		if rec, err := e.ReadRecord(dir, name); err == nil && rec != nil {
			files++
			bytes += rec.Valid
		}
		return nil
	}
	if walk {
		if e.cfg.Upper == nil {
			return 0, 0, nil
		}
		err := e.walk(cancel, add)
		return files, bytes, err
	}
	var d hintDir
	defer d.close()
	for _, p := range hints {
		if canceled(cancel) {
			return files, bytes, unix.EINTR
		}
		if dir, name, err := d.find(e, p); err == nil {
			_ = add(dir, name, p)
		}
	}
	return files, bytes, nil
}

// file settles one file, or puts it in the batch.
func (s *settler) file(dir int, name, path string) error {
	rec, err := s.e.ReadRecord(dir, name)
	if err == nil && rec == nil || vanished(err) == nil && err != nil {
		return nil
	}
	path = "/" + path
	var p *Partial
	if err == nil {
		p, err = s.e.openUpper(dir, name, path)
	}
	if err != nil {
		if vanished(err) != nil {
			s.leave(path, err)
		}
		return nil
	}
	if s.holds[p] { // another name of a file in the batch: the lock is ours already
		p.Close()
		return nil
	}
	full := false
	if err = p.room(); err == nil {
		full, err = s.fill(p, rec.Valid)
	}
	s.done += rec.Valid
	switch {
	case full && err == nil:
		p.dropLower() // the batch may be long, and descriptors few
		s.batch = append(s.batch, p)
		if s.holds == nil {
			s.holds = map[*Partial]bool{}
		}
		s.holds[p] = true
		if len(s.batch) >= batchFiles || s.bytes >= batchBytes {
			return s.flush()
		}
		return nil
	case err == nil || errors.Is(err, unix.EINTR) || errors.Is(err, errSpent):
		p.Close()
		if errors.Is(err, errSpent) {
			s.left++
		}
		return err
	}
	p.Close()
	s.leave(path, err)
	return nil
}

// fill gives p, of size bytes, all its data, piece by piece. If it reports true completing
// is held. It reports false without an error when p was removed meanwhile.
func (s *settler) fill(p *Partial, size int64) (full bool, err error) {
	start := time.Now()
	var copied int64
	for {
		piece := int64(pieceBytes)
		if s.o.Budget > 0 {
			if s.copied >= s.o.Budget {
				if s.o.Pace == nil {
					return false, errSpent
				}
				if err := s.flush(); err != nil {
					return false, err
				}
				if err := s.o.Pace(); err != nil {
					return false, err
				}
				s.copied = 0
			}
			piece = min(piece, s.o.Budget-s.copied)
		}
		p.completing.Lock()
		full, n, err := p.fill(piece, s.o.Cancel)
		s.copied += n
		s.bytes += n
		copied += n
		at := min(p.cursor, size)
		if full && err == nil {
			p.publish(copied, start, nil)
			at = size
		} else {
			p.completing.Unlock()
		}
		if s.o.Progress != nil {
			s.o.Progress(s.done+at, max(s.total, s.done+at))
		}
		if full || err != nil {
			return full, err
		}
		var st unix.Statx_t
		if statFD(p.fd, &st) == nil && st.Nlink == 0 {
			return false, nil // nobody needs the rest
		}
	}
}

func (s *settler) leave(path string, err error) {
	s.left++
	if !errors.Is(err, ErrLowerChanged) { // said already
		s.e.cfg.Log("%s: cannot be completed: %v", path, err)
	}
}

// flush brings the batch to the disk and seals its files.
func (s *settler) flush() error {
	if len(s.batch) == 0 {
		return nil
	}
	if !s.e.cfg.Volatile {
		// One sync for many small files; one for each where they are few, so as
		// not to wait for everything else on the filesystem.
		if len(s.batch) > 16 {
			fd := s.batch[0].fd
			if err := ignoringEINTR(func() error { return unix.Syncfs(fd) }); err != nil {
				return fmt.Errorf("settle: syncfs: %w", err)
			}
		} else {
			for _, p := range s.batch {
				if err := p.Sync(true); err != nil {
					return fmt.Errorf("settle: %q: fsync: %w", p.path, err)
				}
			}
		}
	}
	for _, p := range s.batch {
		err := p.seal()
		if err != nil {
			s.leave(p.path, err)
		}
		p.completing.Unlock()
		p.Close()
	}
	s.batch, s.bytes = s.batch[:0], 0
	clear(s.holds)
	return nil
}

// openUpper opens an unfinished file by its name in the upper. A file that its
// owner, this process, may not open is given the right for that moment.
func (e *Engine) openUpper(dir int, name, path string) (*Partial, error) {
	const flags = unix.O_RDWR | unix.O_NONBLOCK
	fd, err := layer.Open(dir, name, flags, 0)
	if err == unix.EACCES {
		var st unix.Statx_t
		if err := layer.Stat(dir, name, &st); err != nil {
			return nil, err
		}
		if err := layer.Chmod(dir, name, 0o600); err != nil {
			return nil, err
		}
		fd, err = layer.Open(dir, name, flags, 0)
		if cerr := layer.Chmod(dir, name, uint32(st.Mode)&0o7777); cerr != nil && err == nil {
			unix.Close(fd)
			err = cerr
		}
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return e.OpenPartial(fd, path)
}
