package cow

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// DefaultThreshold is the size in bytes from which a copy-up goes by range when
// Config.Threshold is zero. It was measured, see docs/copy-up.md.
const DefaultThreshold = 256 << 10

// metaThreshold is the size in bytes from which a file whose attributes change
// is left without its data rather than copied. It was measured, see docs/copy-up.md.
const metaThreshold = 64 << 10

// stagePrefix begins each private name in the work directory. The kernel's
// overlayfs names its own temporary objects so, and both clean up after each other.
const stagePrefix = "#"

// Config says how an [Engine] works. Only Work is required.
type Config struct {
	// Work is the staging directory, "work" inside the user's work directory
	// (the one whose leftovers the kernel cleans), on the upper's filesystem.
	Work *layer.Dir
	// NS is the namespace of the overlay marks.
	NS whiteout.Namespace
	// Threshold is the size in bytes from which a copy-up may go by range:
	// zero for DefaultThreshold, below zero for never.
	Threshold int64
	// Metacopy keeps metadata-only files in the kernel's format, for mounts
	// with metacopy=on. Without it they are unfinished files.
	Metacopy bool
	// Volatile leaves out every fsync: after a power cut nothing is promised.
	Volatile bool
	// Squash accepts that an object copied up belongs to this process when its
	// owner cannot be kept (a plain user's mount). Set-id bits are then dropped.
	// Without it such a copy-up is refused.
	Squash bool
	// SkipXattr names extended attributes that a copy leaves behind, besides
	// the overlay marks of NS; nil for none.
	SkipXattr func(name string) bool
	// Upper is the root of the upper, where Settle finds unfinished files that
	// have been renamed; nil if there is none to search.
	Upper *layer.Dir
	// Resolve finds the lower file a record speaks of: a directory of a layer and
	// a name in it. The engine checks who it is. An error, or nil for Resolve, makes
	// what is missing of the unfinished file unreadable (ErrLowerChanged).
	Resolve func(*Record) (*layer.Dir, string, error)
	// Bus receives the events; nil for a private one.
	Bus *Bus
	// Log receives one line, with the path, for each thing the upper could not
	// hold; nil to drop them.
	Log func(format string, args ...any)
}

// Engine stages copy-ups into one upper. Its methods may be called from any
// goroutine; see the package comment for the locks.
type Engine struct {
	cfg   Config
	work  *layer.Dir
	index *layer.Dir // nil, or searched like Config.Upper
	ns    whiteout.Namespace
	bus   *Bus

	recordAttr string // full name of the record's attribute

	probe struct {
		once   sync.Once
		under  sync.WaitGroup // those that Prepare and TryWays started
		block  int64          // set once
		memory bool           // the upper has no disk; set once
		// What fallocate(2) of the upper knows; set with block.
		punches, zeroes bool

		ways           sync.Once
		clones, copies bool // between files of the upper's filesystem; set once
		asked          sync.Once
		tried          chan struct{} // set by asked
	}
	open struct {
		mu    sync.Mutex
		files map[inode]*Partial // guarded by mu
	}
	list     unfinished
	steady   steady
	settling sync.Mutex // one Settle
	told     sync.Map   // inode to struct{}: those whose changed lower was logged
	// crashAt is nil outside tests. A test makes it fail to stop in the middle.
	crashAt func(step string) error

	uid, gid uint32 // owner of what this process creates in work
	seq      atomic.Uint64
	pairs    sync.Map // source device (uint64) to *pair
}

// New returns an engine that stages in cfg.Work.
func New(cfg Config) (*Engine, error) {
	if cfg.Work == nil {
		return nil, errors.New("cow: no work directory")
	}
	if cfg.Threshold == 0 {
		cfg.Threshold = DefaultThreshold
	}
	if cfg.Bus == nil {
		cfg.Bus = NewBus()
	}
	if cfg.Log == nil {
		cfg.Log = func(string, ...any) {}
	}
	e := &Engine{cfg: cfg, work: cfg.Work, ns: cfg.NS, bus: cfg.Bus,
		recordAttr: cfg.NS.Name(RecordKey), uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	e.open.files = map[inode]*Partial{}
	fd, err := e.work.FD()
	if err != nil {
		return nil, fmt.Errorf("cow: work directory: %w", err)
	}
	defer e.work.Done()
	var st unix.Statx_t
	if err := layer.Stat(fd, "", &st); err != nil {
		return nil, fmt.Errorf("cow: work directory: %w", err)
	}
	if st.Mode&unix.S_ISGID != 0 {
		e.gid = st.Gid // what is made in a set-gid directory takes its group
	}
	if err := e.findMark(fd); err != nil {
		return nil, fmt.Errorf("cow: mark of unfinished files: %w", err)
	}
	// A start that no earlier run is likely to have used; collisions are retried.
	e.seq.Store(uint64(time.Now().UnixNano()))
	return e, nil
}

// Close closes the engine's own descriptors. No copy-up may run.
func (e *Engine) Close() error {
	e.probe.under.Wait()
	_ = e.markSynced() // an error was logged
	e.list.mu.Lock()
	defer e.list.mu.Unlock()
	if e.list.fd >= 0 {
		unix.Close(e.list.fd)
		e.list.fd = -1
		e.list.marked = false
		e.list.walk.Store(true)
	}
	return nil
}

// crash is where a test stops the engine in the middle.
func (e *Engine) crash(step string) error {
	if e.crashAt == nil {
		return nil
	}
	return e.crashAt(step)
}

// logOnce logs err the first time it concerns the file key.
func (e *Engine) logOnce(key inode, err error) {
	if _, told := e.told.LoadOrStore(key, struct{}{}); !told {
		e.cfg.Log("%v", err)
	}
}

// Bus returns the engine's event bus.
func (e *Engine) Bus() *Bus { return e.bus }

// Threshold returns the size in bytes from which a copy-up may go by range, and
// whether it ever does.
func (e *Engine) Threshold() (bytes int64, byRange bool) {
	return e.cfg.Threshold, e.cfg.Threshold >= 0 && e.Block() > 0
}

// CleanWork removes what an interrupted run left in the work directory: every
// name that starts as a staging name does. Call it before the first Stage, with
// the work directory locked against other mounts.
func (e *Engine) CleanWork() error {
	fd, err := e.work.FD()
	if err != nil {
		return fmt.Errorf("cow: clean work directory: %w", err)
	}
	defer e.work.Done()
	ents, err := layer.ReadDir(fd)
	if err != nil {
		return fmt.Errorf("cow: clean work directory: %w", err)
	}
	for _, ent := range ents {
		if !strings.HasPrefix(ent.Name, stagePrefix) {
			continue
		}
		if err := layer.RemoveAll(fd, ent.Name); err != nil && err != unix.ENOENT {
			return fmt.Errorf("cow: clean work directory: %q: %w", ent.Name, err)
		}
	}
	return nil
}

// tempName returns a fresh private name. It may exist, left by an earlier run.
func (e *Engine) tempName() string {
	const digits = "0123456789abcdef"
	var buf [17]byte
	buf[0] = stagePrefix[0]
	n := e.seq.Add(1)
	for i := len(buf) - 1; i > 0; i-- {
		buf[i] = digits[n&15]
		n >>= 4
	}
	return string(buf[:])
}

// withTemp calls make with fresh names until one did not exist yet.
func (e *Engine) withTemp(make func(name string) error) (string, error) {
	for {
		name := e.tempName()
		err := make(name)
		if err == nil {
			return name, nil
		}
		if err != unix.EEXIST {
			return "", err
		}
	}
}

// pair is what has been learned about copying from one device to the upper.
// Each is set once a method was refused in a way that will not change.
type pair struct {
	noClone, noCopyRange, noFlags atomic.Bool
}

func (e *Engine) pairOf(st *unix.Statx_t) *pair {
	dev := unix.Mkdev(st.Dev_major, st.Dev_minor)
	if p, ok := e.pairs.Load(dev); ok {
		return p.(*pair)
	}
	p, _ := e.pairs.LoadOrStore(dev, new(pair))
	return p.(*pair)
}

func canceled(c <-chan struct{}) bool {
	if c == nil {
		return false
	}
	select {
	case <-c:
		return true
	default:
		return false
	}
}
