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
)

// SettleOptions say how Settle works. The zero value settles everything.
type SettleOptions struct {
	Budget   int64                   // about how many bytes to copy at most; 0 for no limit
	Cancel   <-chan struct{}         // ends with EINTR; what is finished stays so
	Progress func(done, total int64) // bytes of the files looked at; may be nil
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
	for _, p := range hints {
		found, err := s.hint(p)
		if err != nil {
			return -1, s.ended(err)
		}
		walk = walk || !found
	}
	if err := s.flush(); err != nil {
		return -1, err
	}
	if walk {
		if e.cfg.Upper == nil {
			return -1, nil
		}
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

var errSpent = errors.New("budget spent")

// settler is one run of Settle.
type settler struct {
	e           *Engine
	o           SettleOptions
	batch       []*Partial // filled, completing held; to be synced and sealed
	bytes       int64      // copied in this batch
	copied      int64      // in all
	done, total int64
	left        int

	dirPath string // directory of the last hint, open as dir
	dir     int
	hasDir  bool
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
	if s.hasDir {
		unix.Close(s.dir)
	}
}

// hint settles the file at p, if that is still there. It reports false if not.
func (s *settler) hint(p string) (bool, error) {
	if canceled(s.o.Cancel) {
		return false, unix.EINTR
	}
	if s.e.cfg.Upper == nil || !validPath(p) {
		return false, nil
	}
	dir, name := path.Split(p)
	if !s.hasDir || s.dirPath != dir {
		fd, err := s.open(dir)
		if err != nil {
			return false, vanished(err)
		}
		if s.hasDir {
			unix.Close(s.dir)
		}
		s.dir, s.dirPath, s.hasDir = fd, dir, true
	}
	var st unix.Statx_t
	if err := layer.Stat(s.dir, name, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false, vanished(err)
	}
	return true, s.file(s.dir, name, p)
}

// open opens a directory of the upper by its path, name by name.
func (s *settler) open(dir string) (int, error) {
	root, err := s.e.cfg.Upper.FD()
	if err != nil {
		return -1, err
	}
	defer s.e.cfg.Upper.Done()
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

// file settles one file, or puts it in the batch.
func (s *settler) file(dir int, name, path string) error {
	rec, err := s.e.ReadRecord(dir, name)
	if err == nil && rec == nil || vanished(err) == nil && err != nil {
		return nil
	}
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
	if s.o.Budget > 0 && s.copied >= s.o.Budget {
		p.Close()
		s.left++
		return errSpent
	}
	start := time.Now()
	s.total += rec.Valid
	var budget int64
	if s.o.Budget > 0 {
		budget = s.o.Budget - s.copied
	}
	p.completing.Lock()
	full, copied, err := p.fill(budget, s.o.Cancel)
	s.copied += copied
	s.bytes += copied
	s.done += rec.Valid
	if s.o.Progress != nil {
		s.o.Progress(s.done, s.total)
	}
	if full && err == nil {
		p.publish(copied, start, nil)
		p.dropLower() // the batch may be long, and descriptors few
		s.batch = append(s.batch, p)
		if len(s.batch) >= batchFiles || s.bytes >= batchBytes {
			return s.flush()
		}
		return nil
	}
	p.completing.Unlock()
	p.Close()
	switch {
	case errors.Is(err, unix.EINTR):
		return unix.EINTR
	case err != nil:
		s.leave(path, err)
		return nil
	default:
		s.left++
		return errSpent
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
