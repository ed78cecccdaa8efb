package graft

import (
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// Union is an overlay with grafts in it, to be served by package fusefs.
type Union struct {
	fs    *overlay.FS
	log   func(format string, args ...any)
	priv  bool // root of its user namespace: may give files away
	start time.Time
	// frozen: nothing of the overlay may change. The grafts may.
	frozen bool
	quiet  bool // see Config.NoAtime

	root    Node
	sources []*source
	// points of each directory that has some. Fixed when New returns.
	points map[Node]map[string]*point

	nodes table
	locks lockTable

	devMu sync.Mutex
	devs  map[uint64]uint8 // guarded by devMu
}

// Config describes the grafts of a union.
type Config struct {
	Specs []Spec
	// ReadOnly lets nobody change the overlay; writable grafts stay writable.
	ReadOnly bool
	// NoAtime: reading leaves the access times of files.
	NoAtime bool
	// Log takes one line for each thing the user should know. nil is package log.
	Log func(format string, args ...any)
}

// New grafts what cfg says into fs. Sources are opened, and targets looked up, now; nothing is
// changed in any layer. Errors are one line. The overlay stays the caller's to close.
func New(fs *overlay.FS, cfg Config) (_ *Union, err error) {
	u := &Union{
		fs: fs, log: cfg.Log, priv: os.Geteuid() == 0, start: time.Now(), frozen: cfg.ReadOnly || fs.ReadOnly(), quiet: cfg.NoAtime,
		points: map[Node]map[string]*point{}, devs: map[uint64]uint8{},
	}
	u.nodes.init()
	u.locks.init()
	u.root = Node{o: fs.Root()}
	defer func() {
		if err != nil {
			u.Close()
		}
	}()
	specs := make([]Spec, len(cfg.Specs))
	copy(specs, cfg.Specs)
	specs, err = u.order(specs)
	if err != nil {
		return nil, err
	}
	for i := range specs {
		s, err := u.openSource(&specs[i])
		if err != nil {
			return nil, err
		}
		u.sources = append(u.sources, s)
		if err := u.plant(s); err != nil {
			return nil, fmt.Errorf("%s %s at %s: %w", s.spec.Kind, s.path, s.spec.Target, err)
		}
		if len(s.spec.Idle) > 0 {
			u.logf("%s at %s: no effect of %v: such flags are those of the whole mount", s.spec.Kind, s.spec.Target, s.spec.Idle)
		}
	}
	return u, nil
}

func (u *Union) logf(format string, args ...any) {
	if u.log != nil {
		u.log(format, args...)
		return
	}
	log.Printf(format, args...)
}

// FS returns the overlay.
func (u *Union) FS() *overlay.FS { return u.fs }

// Close gives the sources back. No operation may run. The overlay stays open.
func (u *Union) Close() {
	u.locks.close()
	for _, s := range u.sources {
		s.close()
	}
	u.sources = nil
}

// Root returns the root directory of the view.
func (u *Union) Root() Node { return u.root }

// Node returns the node with the number, or the zero Node.
func (u *Union) Node(id uint64) Node {
	switch {
	case id == rootID:
		return u.root
	case id&ourBit != 0:
		if n := u.nodes.get(id); n != nil {
			return Node{g: n}
		}
		return Node{}
	}
	if o := u.fs.Node(id); o != nil {
		return Node{o: o}
	}
	return Node{}
}

// Forget takes back count references that earlier operations gave.
func (u *Union) Forget(id, count uint64) {
	if id&ourBit == 0 {
		if u.root.g != nil && id == rootID {
			return
		}
		u.fs.Forget(id, count)
		return
	}
	if n := u.nodes.get(id); n != nil && !n.top {
		u.nodes.unref(n, count)
	}
}

// Keep implements fusefs.Sharer.
func (u *Union) Keep(n Node) (name, rest bool) {
	switch {
	case n.g == nil || n.g.src == nil || n.g.src.private:
		return true, true
	}
	return n.g.top, false
}

// Ahead implements fusefs.Sharer: a listing asks no source for attributes.
func (u *Union) Ahead(dir Node, name string) bool {
	p := u.point(dir, name)
	return p == nil || p.root.g.src == nil || p.root.g.src.private
}

// self is this process as a caller.
func (u *Union) self() *overlay.Caller {
	return &overlay.Caller{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: uint32(os.Getpid())}
}

func (u *Union) forget(n Node) {
	if n.g == nil {
		u.fs.Forget(n.o.ID(), 1)
	} else if !n.g.top {
		u.nodes.unref(n.g, 1)
	}
}

var errReadOnly = unix.EROFS

// Writable says whether anything in the view can be changed.
func (u *Union) Writable() bool {
	for _, s := range u.sources {
		if !s.spec.ReadOnly {
			return true
		}
	}
	return !u.frozen
}

// fixed says that n may not be changed.
func (u *Union) fixed(n Node) bool {
	if n.g == nil {
		return u.frozen
	}
	return n.g.src != nil && n.g.src.spec.ReadOnly
}
