package overlay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// FS is one union: a stack of layers, seen as one tree.
type FS struct {
	cfg   Config
	cache *layer.Cache

	upper  *layer.Tree   // nil: read-only
	work   *layer.Tree   // the user's work directory
	stage  *layer.Dir    // work/work, where objects are built
	indexd *layer.Dir    // work/index: hard links; nil without
	lowers []*layer.Tree // topmost first
	datas  []*layer.Tree // data-only layers

	ns   whiteout.Namespace
	can  layer.Abilities // of the upper
	eng  *cow.Engine
	bus  *cow.Bus
	fsys []filesystem // see ino.go
	self owner
	// overrides names the attribute that holds owners and modes, of the layers that have one; nil
	// if none has. Fixed.
	overrides map[*layer.Tree]string

	unfinished sync.Map // *layer.Tree: it was said that it was not settled

	nodes table
	root  *Node
	files files
	dirs  indexes
	ups   flights

	// renames orders everything that changes which directory is where. Whoever
	// needs two directories of the view to stay in place takes it before their locks.
	renames sync.Mutex

	// altered counts what changes the upper under a node without the lock on its directory's names: a
	// copy-up, a further name, a link count. A lookup that overlaps with one makes no node.
	altered atomic.Uint64

	white    whiteouts
	xwhite   bool // whiteouts are files with a mark: neither devices nor .wh. files can be made
	temp     atomic.Uint64
	settle   settling
	degraded atomic.Bool
	// linkedOrigins: the upper may have linked files with an origin in directories without the impure
	// mark, see linksMark. linkedBefore: it may have had them when it was mounted, and of some only one
	// name is left.
	linkedOrigins atomic.Bool
	linkedBefore  bool
	linksLeft     bool        // an earlier mount has left names to be made, see soughtMark
	astray        atomic.Bool // there may be redirects the kernel does not follow, see moves.go
	closers       []io.Closer
	made          []func() // take away the directories this mount made, if empty; in New and Discard only
	unused        bool     // see Discard
	// crashAt is nil outside tests, which look there at what a kill would leave, or what a race would do.
	crashAt func(step string)
}

func (fs *FS) crash(step string) {
	if fs.crashAt != nil {
		fs.crashAt(step)
	}
}

// owner is who this process is, to the filesystem.
type owner struct {
	uid, gid   uint32
	privileged bool // may give files away, and read what it does not own
}

func (fs *FS) upperRoot() *layer.Dir {
	if fs.upper == nil {
		return nil
	}
	return fs.upper.Root
}

// ReadOnly says whether there is no upper.
func (fs *FS) ReadOnly() bool { return fs.upper == nil }

// Bus returns the events of copy-ups.
func (fs *FS) Bus() *cow.Bus { return fs.bus }

// Errno returns the number to show for an error of this package: the errno it wraps,
// EIO if it wraps none.
func Errno(err error) unix.Errno {
	if err == nil {
		return 0
	}
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}

// cachedDirs is how many descriptors of directories are kept; 0 for what the limit of open files suggests.
// Tests keep few.
var cachedDirs = 0

// New opens the layers of cfg and prepares the upper. When it fails, what it made is
// taken away again.
func New(cfg Config) (_ *FS, err error) {
	fs := &FS{cfg: cfg, cache: layer.NewCache(cachedDirs), bus: cow.NewBus()}
	fs.nodes.init()
	fs.files.init(fs)
	fs.ups.init()
	defer func() {
		if err != nil {
			fs.closeAll()
			fs.unmake()
		}
	}()
	if len(cfg.Lowers) == 0 && cfg.Upper == "" {
		return nil, errors.New("no layer given: name at least one lower directory")
	}
	fs.self = whoami()
	if err := fs.checkPaths(); err != nil {
		return nil, err
	}
	if err := fs.openLowers(); err != nil {
		return nil, err
	}
	if fs.cfg.Upper != "" {
		if err := fs.openUpper(); err != nil {
			return nil, err
		}
	} else {
		fs.ns = fs.readNamespace()
	}
	fs.findOverrides()
	fs.numberFilesystems()
	if err := fs.makeRoot(); err != nil {
		return nil, err
	}
	if fs.upper != nil {
		if err := fs.prepareUpper(); err != nil {
			return nil, err
		}
		fs.startWorker()
	}
	return fs, nil
}

func (fs *FS) openLowers() error {
	for i, path := range fs.cfg.Lowers {
		t, err := layer.OpenTree(path, i+1, fs.cache, layer.TreeOptions{Private: true, Opened: awaitSettled})
		if err != nil {
			return notOpened(path, "lower layer", err)
		}
		fs.closers = append(fs.closers, t)
		fs.lowers = append(fs.lowers, t)
	}
	for i, path := range fs.cfg.DataLowers {
		t, err := layer.OpenTree(path, len(fs.cfg.Lowers)+i+1, fs.cache, layer.TreeOptions{Private: true})
		if err != nil {
			return notOpened(path, "data layer", err)
		}
		fs.closers = append(fs.closers, t)
		fs.datas = append(fs.datas, t)
	}
	return nil
}

// notOpened says why a layer could not be opened.
func notOpened(path, what string, err error) error {
	if errors.Is(err, unix.EMFILE) {
		return failure(path, "cannot open "+what+", each takes a descriptor; raise the limit (ulimit -n)", err)
	}
	return failure(path, "cannot open "+what, err)
}

// makeRoot builds the node of the root directory: all layers merge there.
func (fs *FS) makeRoot() error {
	n := &Node{typ: unix.S_IFDIR, anchor: -1, refs: 1, d: &directory{children: map[string]*Node{}}}
	var top *layer.Tree
	if fs.upper != nil {
		n.d.upper.Store(fs.upper.Root)
		n.upper.Store(true)
		top = fs.upper
	}
	for _, t := range fs.lowers {
		n.d.lowers = append(n.d.lowers, t.Root)
		if top == nil {
			top = t
		}
	}
	n.dir, n.real = top.Root, ""
	for i, l := range n.d.lowers {
		fd, err := l.FD()
		if err != nil {
			return failure(l.Tree().Path, "cannot read layer", err)
		}
		// "." for the directory itself: the attributes of a descriptor that is only a place are read in a roundabout way.
		if fs.opaqueAt(fd, ".", i == len(n.d.lowers)-1) == whiteout.OpaqueXattrWhiteouts {
			n.d.xwhiteouts.Store(true)
		}
		l.Done()
	}
	// As ovl_get_root: the root is never copied up, its number is that of the top.
	fd, err := top.Root.FD()
	if err != nil {
		return failure(top.Path, "cannot read layer", err)
	}
	defer top.Root.Done()
	var st Attr
	if err := layer.Stat(fd, "", &st); err != nil {
		return failure(top.Path, "cannot read layer", err)
	}
	n.ino.Store(fs.viewIno(top, st.Ino))
	if fs.upper != nil {
		n.d.impure.Store(fs.readImpure(fd, ""))
		if fs.opaqueAt(fd, ".", len(fs.lowers) == 0) == whiteout.OpaqueXattrWhiteouts {
			n.d.xwhiteouts.Store(true)
		}
	}
	fs.root = n
	fs.nodes.mu.Lock()
	fs.nodes.insert(n)
	fs.nodes.mu.Unlock()
	return nil
}

// Close ends the union: unfinished files are settled unless Config.NoSettle, marks
// that name this mount are taken away, descriptors closed. No operation may run.
func (fs *FS) Close() error {
	var err error
	if fs.upper != nil {
		err = fs.finish()
	}
	fs.closeAll()
	return err
}

// Discard is Close for a union that was never used: the mount failed. The directories that New
// made are taken away again.
func (fs *FS) Discard() error {
	fs.cfg.NoSettle, fs.unused = true, true // what an earlier mount left unfinished stays so
	err := fs.Close()
	fs.unmake()
	return err
}

func (fs *FS) unmake() {
	for i := len(fs.made) - 1; i >= 0; i-- {
		fs.made[i]()
	}
	fs.made = nil
}

// makeIn makes a directory in d, a root, unless it is there.
func (fs *FS) makeIn(d *layer.Dir, name string) error {
	fd, err := d.FD()
	if err != nil {
		return err
	}
	defer d.Done()
	if err := layer.Mkdir(fd, name, 0o700); err != nil {
		if err == unix.EEXIST {
			err = nil
		}
		return err
	}
	path := filepath.Join(d.Tree().Path, name)
	fs.made = append(fs.made, func() { _ = os.Remove(path) })
	return nil
}

func (fs *FS) closeAll() {
	fs.files.closeAll()
	fs.cache.Close()
	for _, c := range fs.closers {
		c.Close()
	}
	fs.closers = nil
}

var (
	// errReadOnly is what every change meets without an upper.
	errReadOnly = fmt.Errorf("no upper: %w", unix.EROFS)
	errCursor   = fmt.Errorf("no such cursor: %w", unix.EINVAL)
)
