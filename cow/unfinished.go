package cow

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// While there may be unfinished files, the work directory has
//
//	incompat/plyfs-partial/list
//
// The kernel's overlayfs refuses a work directory with anything in "incompat"
// that it does not know, and says its name (ovl_workdir_cleanup_recurse). The list
// has the path in the upper of each file that was left unfinished, ended by a NUL, and is
// there so that memory need not hold them all: many go to it with one write, a directory
// entry per file would cost more than the copy of a small one. It is a hint, of this
// mount alone: whoever needs to be certain, after a crash or when a file
// is not where the list says, walks the upper. The truth is in the records.
const (
	// PartialMark is the name in incompat that says: there may be unfinished files.
	PartialMark = "plyfs-partial"

	incompatDir = "incompat"
	listName    = "list"

	// tailBytes is how much of the list is gathered before it is written.
	tailBytes = 16 << 10
)

// unfinished is the engine's part in the mark.
type unfinished struct {
	// count is how many files were committed and not finished while this mark is there. It is
	// never too low, unless walk: files that were removed count.
	count atomic.Int64
	walk  atomic.Bool   // an earlier mount left the mark: the list may lack files
	era   atomic.Uint64 // how many marks there were; changed with mu held
	sync  atomic.Pointer[markSync]

	mu     sync.Mutex
	marked bool   // the mark is there, see marksync.go; guarded by mu
	fd     int    // the list, for appending; guarded by mu
	tail   []byte // of the list, not written yet; guarded by mu
	slow   bool   // the mark is synced before anything else is done; guarded by mu
	seq    uint64 // changes when a file is announced, or moves; guarded by mu
	staged int    // announced, and neither committed nor aborted, or moving; guarded by mu
}

// Marked says whether the upper may have unfinished files. As long as it does
// not, no file of it needs to be asked for a record.
func (e *Engine) Marked() bool {
	e.list.mu.Lock()
	defer e.list.mu.Unlock()
	return e.list.marked || e.list.walk.Load()
}

// Unfinished returns how many files are unfinished, as far as that is known without
// a walk: at least 1 as long as there may be any, and 0 when there is none.
func (e *Engine) Unfinished() int {
	if !e.Marked() {
		return 0
	}
	return int(max(e.list.count.Load(), 1))
}

// Moving says that something in the upper is about to be renamed, or to get a further
// name, until done is called: a Settle that walks over the upper meanwhile may pass an
// unfinished file by, and leaves the mark.
func (e *Engine) Moving() (done func()) {
	l := &e.list
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.marked && !l.walk.Load() {
		return func() {}
	}
	l.staged++
	return func() {
		l.mu.Lock()
		l.staged--
		l.seq++
		l.mu.Unlock()
	}
}

// SearchIndex makes Settle look in a directory besides Config.Upper: the index of hard
// links has files whose names in the upper are all gone. Call it before any Settle.
func (e *Engine) SearchIndex(dir *layer.Dir) { e.index = dir }

// Pending returns how many files are unfinished, as Unfinished does, and at most how
// many bytes they still need from below. bytes is -1 where more than limit files
// would have to be looked at, or the whole upper.
func (e *Engine) Pending(limit int) (files int, bytes int64) {
	files = e.Unfinished()
	if files == 0 {
		return 0, 0
	}
	if files > limit {
		return files, -1
	}
	hints, _, err := e.hints()
	if err != nil || hints == nil || len(hints) > 4*limit {
		return files, -1
	}
	var d hintDir
	defer d.close()
	found := 0
	for _, p := range hints {
		dir, name, err := d.find(e, p)
		if err != nil {
			continue
		}
		rec, err := e.ReadRecord(dir, name)
		var st unix.Statx_t
		if err != nil || rec == nil || layer.Stat(dir, name, &st) != nil {
			continue
		}
		found++
		bytes += max(rec.Valid-int64(st.Blocks)*512, 0)
	}
	if found < files {
		return files, -1
	}
	return files, bytes
}

// findMark looks whether an earlier mount left the mark.
func (e *Engine) findMark(work int) error {
	e.list.fd = -1
	dir, err := openMark(work)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	unix.Close(dir)
	e.list.walk.Store(true)
	return nil
}

func openMark(work int) (int, error) {
	dir, err := layer.Open(work, incompatDir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	return layer.Open(dir, PartialMark, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// announce sees to it that the mark is on disk, and adds a path to the list,
// before an unfinished file gets its name. Each call is followed by one of placed.
func (e *Engine) announce(work int, path string) error {
	l := &e.list
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.marked {
		if err := e.writeMark(work); err != nil {
			return err
		}
		l.marked = true
	}
	l.seq++
	l.staged++
	l.tail = append(append(l.tail, strings.TrimPrefix(path, "/")...), 0)
	if len(l.tail) >= tailBytes {
		if n, err := unix.Write(l.fd, l.tail); err != nil || n < len(l.tail) {
			l.walk.Store(true) // the list lacks files: walk
		}
		l.tail = l.tail[:0]
	}
	return nil
}

// placed ends what announce began.
func (e *Engine) placed(committed bool) {
	if committed {
		e.list.count.Add(1)
	}
	e.list.mu.Lock()
	e.list.staged--
	e.list.mu.Unlock()
}

// writeMark makes the mark, and sees to it that no unfinished file is on disk without it. list.mu is held.
func (e *Engine) writeMark(work int) error {
	mkdir := func(parent int, name string) (int, error) {
		if err := layer.Mkdir(parent, name, 0o700); err != nil && err != unix.EEXIST {
			return -1, err
		}
		return layer.Open(parent, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	}
	incompat, err := mkdir(work, incompatDir)
	if err != nil {
		return fmt.Errorf("mark the work directory: %w", err)
	}
	defer unix.Close(incompat)
	mark, err := mkdir(incompat, PartialMark)
	if err != nil {
		return fmt.Errorf("mark the work directory: %w", err)
	}
	defer unix.Close(mark)
	fd, err := layer.Open(mark, listName, unix.O_RDWR|unix.O_CREAT|unix.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("mark the work directory: %w", err)
	}
	if !e.cfg.Volatile {
		if err := e.syncMark(mark, incompat); err != nil {
			unix.Close(fd)
			return fmt.Errorf("mark the work directory: fsync: %w", err)
		}
	}
	if e.list.fd >= 0 {
		unix.Close(e.list.fd)
	}
	e.list.fd = fd
	return nil
}

// removeMark takes the mark away if no file was announced or moved since seq and none is
// about to be committed.
func (e *Engine) removeMark(seq uint64) error {
	l := &e.list
	var old *markSync
	defer func() { old.needless() }() // waits for a sync that has begun: without the lock
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seq != seq || l.staged > 0 {
		return nil
	}
	work, err := e.work.FD()
	if err != nil {
		return err
	}
	defer e.work.Done()
	dir, err := layer.Open(work, incompatDir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == unix.ENOENT {
		err = nil
	} else if err == nil {
		err = layer.RemoveAll(dir, PartialMark)
		unix.Close(dir)
		if err == unix.ENOENT {
			err = nil
		}
		_ = layer.Rmdir(work, incompatDir) // stays while there are other marks
	}
	if err != nil {
		return fmt.Errorf("remove the mark of unfinished files: %w", err)
	}
	old = l.sync.Swap(nil)
	l.marked = false
	l.tail = nil
	l.walk.Store(false)
	l.count.Store(0)
	l.era.Add(1)
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
	return nil
}

// hints returns the paths in the list, each once, and how many were announced.
func (e *Engine) hints() ([]string, uint64, error) {
	l := &e.list
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.marked || l.walk.Load() {
		return nil, l.seq, nil
	}
	var b []byte
	for {
		if len(b) == cap(b) {
			b = append(b, make([]byte, max(len(b), 64<<10))...)[:len(b)]
		}
		n, err := unix.Pread(l.fd, b[len(b):cap(b)], int64(len(b)))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, l.seq, err
		}
		if n == 0 {
			break
		}
		b = b[:len(b)+n]
	}
	b = append(b, l.tail...)
	seen := map[string]bool{}
	var out []string
	for path := range strings.SplitSeq(string(b), "\x00") {
		if path != "" && !seen[path] {
			seen[path] = true
			out = append(out, path)
		}
	}
	return out, l.seq, nil
}

// Walk calls f with the path, from the upper's root, and the record of every
// unfinished file of the upper, until f returns an error. It reads the whole upper,
// whatever the list says: for `plyfs check`. Files whose record is damaged come
// with a nil record. Config.Upper is needed.
func (e *Engine) Walk(f func(path string, r *Record) error) error {
	return e.walk(nil, func(dir int, name, path string) error {
		rec, err := e.ReadRecord(dir, name)
		if err == unix.ENOENT || (err == nil && rec == nil) {
			return nil
		}
		if err != nil && !errors.Is(err, ErrBadRecord) {
			return fmt.Errorf("%q: %w", path, err)
		}
		return f(path, rec)
	})
}

// walk calls f for every regular file of the upper. What vanishes meanwhile is
// passed over.
func (e *Engine) walk(cancel <-chan struct{}, f func(dir int, name, path string) error) error {
	if e.cfg.Upper == nil {
		return errors.New("cow: no upper directory given")
	}
	root, err := e.cfg.Upper.FD()
	if err != nil {
		return err
	}
	defer e.cfg.Upper.Done()
	w := walker{cancel: cancel, f: f}
	if err := w.dir(root, ""); err != nil || e.index == nil {
		return err
	}
	index, err := e.index.FD()
	if err != nil {
		return vanished(err)
	}
	defer e.index.Done()
	w.path = []byte("(index)")
	return w.dir(index, "")
}

// walker is one walk. The path is kept once, and not by each directory on the way: anybody can make
// a tree that is so deep that this would be more than there is.
type walker struct {
	cancel <-chan struct{}
	f      func(dir int, name, path string) error
	path   []byte
}

func (w *walker) dir(parent int, name string) error {
	fd, err := layer.Open(parent, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return vanished(err)
	}
	defer unix.Close(fd)
	ents, err := layer.ReadDir(fd)
	if err != nil {
		return vanished(err)
	}
	for _, ent := range ents {
		if canceled(w.cancel) {
			return unix.EINTR
		}
		typ := ent.Type
		if typ == unix.DT_UNKNOWN {
			var st unix.Statx_t
			if layer.Stat(fd, ent.Name, &st) != nil {
				continue
			}
			typ = uint8(st.Mode & unix.S_IFMT >> 12)
		}
		here := len(w.path)
		if here > 0 {
			w.path = append(w.path, '/')
		}
		w.path = append(w.path, ent.Name...)
		switch typ {
		case unix.DT_DIR:
			err = w.dir(fd, ent.Name)
		case unix.DT_REG:
			err = w.f(fd, ent.Name, string(w.path))
		}
		w.path = w.path[:here]
		if err != nil {
			return err
		}
	}
	return nil
}

// vanished makes no error of what somebody removed.
func vanished(err error) error {
	if err == unix.ENOENT || err == unix.ESTALE || err == unix.ENOTDIR || err == io.EOF {
		return nil
	}
	return err
}
