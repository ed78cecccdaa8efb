package layer

import (
	"container/list"
	"math"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Cache keeps the descriptors of directories, of all trees of a union together. Those in
// use are pinned; of the others the least recently opened go when there are too many.
type Cache struct {
	limit int
	tree  sync.RWMutex // see the package comment

	mu          sync.Mutex            // guards the rest
	lru         *list.List            // of *Dir with a descriptor
	filesystems map[uint64]Filesystem // by device, see Tree.identify
}

// NewCache returns a cache of up to n unused descriptors, or as many as the limit of
// open files suggests.
func NewCache(n int) *Cache {
	if n <= 0 {
		n = 512
		var r unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) == nil {
			n = int(min(max(r.Cur/4, 1), 16384))
		}
	}
	return &Cache{limit: n, lru: list.New(), filesystems: map[uint64]Filesystem{}}
}

// RaiseNoFile raises the limit of open files as far as this process may, and returns it.
func RaiseNoFile() (int, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, err
	}
	want := r.Max
	if r.Cur < want {
		r.Cur = want
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
			return 0, err
		}
	}
	return int(min(r.Cur, 1<<30)), nil
}

// RaiseFileSize takes the limit of the size of files away, as far as this process may, and returns what it
// is in bytes; -1 for none. Whoever serves files for others writes up to their limits, not up to his own.
func RaiseFileSize() int64 {
	r := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if unix.Setrlimit(unix.RLIMIT_FSIZE, &r) == nil {
		return -1
	}
	if unix.Getrlimit(unix.RLIMIT_FSIZE, &r) != nil || r.Max > math.MaxInt64 {
		r.Max = unix.RLIM_INFINITY
	}
	r.Cur = r.Max
	_ = unix.Setrlimit(unix.RLIMIT_FSIZE, &r)
	if r.Max == unix.RLIM_INFINITY {
		return -1
	}
	return int64(r.Max)
}

// Dir is one directory of a tree. Making one costs nothing: it is opened when its
// descriptor is first asked for, by way of its parent. All methods may be called from any
// goroutine.
type Dir struct {
	tree   *Tree
	parent *Dir   // changed under Cache.tree
	name   string // likewise

	// state counts the pins, with held added while there is a descriptor. The descriptor
	// is closed by whoever takes state to 0 after held is gone.
	state atomic.Int64
	fd    int32 // valid while state has held
	open  sync.Mutex
	elem  *list.Element // guarded by Cache.mu

	// Leaving is held for reading by whoever closes what may be the last descriptor of an object removed
	// from the directory, and for writing by whoever removes the directory. rmdir(2) waits
	// for such an object to be gone by looking at all names again and again (shrink_dcache_parent); on one
	// processor it keeps the thread that closes from coming to its end until its time slice is over.
	Leaving sync.RWMutex
}

const held = 1 << 32

// Child returns a directory in d. It is not looked whether it exists.
func (d *Dir) Child(name string) *Dir { return &Dir{tree: d.tree, parent: d, name: name, fd: -1} }

// Tree returns the tree d is in.
func (d *Dir) Tree() *Tree { return d.tree }

// Path returns the path from the root of the tree, "" for the root itself.
func (d *Dir) Path() string {
	d.tree.cache.tree.RLock()
	defer d.tree.cache.tree.RUnlock()
	p := ""
	for ; d.parent != nil; d = d.parent {
		if p == "" {
			p = d.name
		} else {
			p = d.name + "/" + p
		}
	}
	return p
}

// FD returns an O_PATH descriptor, which stays open until Done is called.
func (d *Dir) FD() (int, error) {
	if d.pin() {
		return int(d.fd), nil
	}
	c := d.tree.cache
	c.tree.RLock()
	defer c.tree.RUnlock()
	return d.reach()
}

// pin adds one user if there is a descriptor.
func (d *Dir) pin() bool {
	for {
		s := d.state.Load()
		if s < held {
			return false
		}
		if d.state.CompareAndSwap(s, s+1) {
			return true
		}
	}
}

// reach opens d by way of its parents. Cache.tree is held for reading.
func (d *Dir) reach() (int, error) {
	d.open.Lock()
	defer d.open.Unlock()
	for {
		s := d.state.Load()
		if s == 0 {
			break
		}
		if s >= held {
			if d.pin() {
				return int(d.fd), nil
			}
			continue
		}
		// Forgotten while others use it: it is kept after all. To wait for them would keep Cache.tree
		// from one of them that renames.
		if d.state.CompareAndSwap(s, s+held+1) {
			d.tree.cache.opened(d)
			return int(d.fd), nil
		}
	}
	if d.parent == nil {
		return -1, unix.EBADF // the root of a closed tree
	}
	var pfd int
	var err error
	if d.parent.pin() {
		pfd = int(d.parent.fd)
	} else if pfd, err = d.parent.reach(); err != nil {
		return -1, err
	}
	fd, err := Open(pfd, d.name, unix.O_PATH|unix.O_DIRECTORY, 0)
	d.parent.Done()
	if err != nil {
		return -1, err
	}
	d.fd = int32(fd)
	d.state.Store(held + 1)
	d.tree.cache.opened(d)
	return fd, nil
}

// SamePlace says whether d and o are the same directory of the same tree, by name.
func (d *Dir) SamePlace(o *Dir) bool {
	return d == o || d.tree == o.tree && d.Path() == o.Path()
}

// Renew closes the descriptor if another directory has the name of d by now.
func (d *Dir) Renew() {
	c := d.tree.cache
	c.tree.RLock()
	parent, name := d.parent, d.name
	c.tree.RUnlock()
	if parent == nil || !d.pin() {
		return
	}
	var was, is unix.Statx_t
	err := Stat(int(d.fd), "", &was)
	d.Done()
	if err != nil {
		return
	}
	fd, err := parent.FD()
	if err != nil {
		return
	}
	err = Stat(fd, name, &is)
	parent.Done()
	if err != nil || was.Ino != is.Ino || was.Dev_major != is.Dev_major || was.Dev_minor != is.Dev_minor {
		d.Forget()
	}
}

// Done ends a use that FD began. The last one after the descriptor was given up closes it:
// it is read while it is still pinned, because from then on somebody may open d anew.
func (d *Dir) Done() {
	fd := int(d.fd)
	if d.state.Add(-1) == 0 {
		unix.Close(fd)
	}
}

// Forget closes the descriptor once its users are done. The Dir stays usable.
func (d *Dir) Forget() {
	if d.parent == nil {
		return
	}
	c := d.tree.cache
	c.mu.Lock()
	if d.elem != nil {
		c.lru.Remove(d.elem)
		d.elem = nil
	}
	c.mu.Unlock()
	d.release()
}

// release takes held away, if it is there.
func (d *Dir) release() {
	for {
		s := d.state.Load()
		if s < held {
			return
		}
		if d.state.CompareAndSwap(s, s-held+1) { // keep it pinned while we look
			d.Done()
			return
		}
	}
}

// opened enters a directory just opened and lets go of what is too much.
func (c *Cache) opened(d *Dir) {
	c.mu.Lock()
	var out []*Dir
	d.elem = c.lru.PushFront(d)
	for c.lru.Len() > c.limit {
		e := c.lru.Back()
		old := e.Value.(*Dir)
		c.lru.Remove(e)
		old.elem = nil
		if old != d {
			out = append(out, old)
		}
	}
	c.mu.Unlock()
	for _, old := range out {
		old.release()
	}
}

// Close gives up the descriptors of all directories but roots, each once its users are done. The Dirs
// cannot be used any more when their trees are closed.
func (c *Cache) Close() {
	c.mu.Lock()
	var out []*Dir
	for e := c.lru.Front(); e != nil; e = e.Next() {
		d := e.Value.(*Dir)
		d.elem = nil
		out = append(out, d)
	}
	c.lru.Init()
	c.mu.Unlock()
	for _, d := range out {
		d.release()
	}
}

// Moved says where a directory is after a rename: name in Parent.
type Moved struct {
	Dir, Parent *Dir
	Name        string
}

// Rename runs rename while no directory is being opened by way of those that it moves, and notes where they
// are if it returns nil. Nil directories do not count.
func (c *Cache) Rename(rename func() error, moved ...Moved) error {
	c.tree.Lock()
	defer c.tree.Unlock()
	if err := rename(); err != nil {
		return err
	}
	for _, m := range moved {
		if m.Dir != nil {
			m.Dir.parent, m.Dir.name = m.Parent, m.Name
		}
	}
	return nil
}
