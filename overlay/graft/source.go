package graft

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/overlay"
)

// source is one live tree.
type source struct {
	u       *Union
	spec    Spec
	path    string // on the host, for messages, and to find it again
	private bool   // nobody but this mount changes it
	remote  bool   // somewhere else decides who may do what
	direct  atomic.Bool
	noACL   atomic.Bool // has no access lists
	root    *inode
	typ     uint32
	first   overlay.Attr // of the root, as it was found
	cleanup func()
	nodes   map[key]*inode // guarded by table.mu

	gen atomic.Uint32 // times the root was opened

	ground ground      // where the root was found
	mu     sync.Mutex  // held while the root is opened again
	gone   atomic.Bool // and the log says so; changed with mu held

	said sync.Map // features the log has named as missing

	late atomic.Int32                 // glances that the source has not answered in time
	seen atomic.Pointer[overlay.Attr] // what the last one answered; nil: none did
}

// wordless is how long a mount waits for a source and says nothing.
const wordless = 3 * time.Second

// openSource finds what spec names. Errors are one line.
func (u *Union) openSource(spec *Spec) (*source, error) {
	s := &source{u: u, spec: *spec, path: spec.Source, nodes: map[key]*inode{}}
	switch spec.Kind {
	case Volume:
		if s.path = spec.Path; s.path == "" {
			return nil, fmt.Errorf("volume %s: nobody said where it is", spec.Source)
		}
	case Tmpfs:
		if err := s.makeTmpfs(); err != nil {
			return nil, fmt.Errorf("tmpfs %s: %w", spec.Target, err)
		}
	}
	if s.root != nil {
		return s, nil
	}
	if abs, err := filepath.Abs(s.path); err == nil {
		s.path = abs
	}
	late := time.AfterFunc(wordless, func() {
		u.logf("%s at %s: the source %s does not answer; waiting for it", spec.Kind, spec.Target, s.path)
	})
	defer late.Stop()
	if spec.Create {
		if _, err := os.Stat(s.path); errors.Is(err, os.ErrNotExist) {
			if err := os.MkdirAll(s.path, 0o755); err != nil {
				return nil, fmt.Errorf("bind %s: cannot make the source: %w", s.path, err)
			}
		}
	}
	fd, g, err := s.open()
	if err != nil {
		return nil, fmt.Errorf("%s %s: cannot open the source: %w", spec.Kind, s.path, err)
	}
	s.ground = g
	if err := s.plant(fd); err != nil {
		return nil, fmt.Errorf("%s %s: %w", spec.Kind, s.path, err)
	}
	return s, nil
}

// plant makes the root node of an open descriptor.
func (s *source) plant(fd int) error {
	var a overlay.Attr
	if err := layer.Stat(fd, "", &a); err != nil {
		unix.Close(fd)
		return err
	}
	s.typ = uint32(a.Mode) & unix.S_IFMT
	if s.typ == unix.S_IFLNK {
		unix.Close(fd)
		return unix.ELOOP
	}
	s.gen.Store(1)
	n := &inode{typ: s.typ, src: s, top: true, key: s.key(1, &a), ino: s.u.viewIno(&a)}
	n.desc.Store(newDesc(fd))
	s.root, s.first = n, a
	s.u.show(n, &s.first)
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) == nil {
		s.remote = isRemote(int64(st.Type))
	}
	s.direct.Store(s.u.priv)
	t := &s.u.nodes
	t.mu.Lock()
	t.insert(n)
	t.mu.Unlock()
	return nil
}

// ground says on what a path stands: by that a source that went away is told from the empty
// directory that its mount point is without it.
type ground struct {
	magic int64 // the kind of filesystem, statfs(2)'s f_type
	mount bool  // something is mounted right there
}

const statxAttrMountRoot = 0x2000 // STATX_ATTR_MOUNT_ROOT

// open opens the root by its path. Links in it are followed: it is the user who named it.
// Where it may, it opens a clone of the mounts there: nobody is kept from unmounting the original,
// and what is read-only is so for the kernel too.
func (s *source) open() (int, ground, error) {
	var g ground
	fd, err := unix.Open(s.path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, g, err
	}
	var fs unix.Statfs_t
	var a overlay.Attr
	if err = retry(func() error { return unix.Fstatfs(fd, &fs) }); err == nil {
		err = layer.Stat(fd, "", &a)
	}
	if err != nil {
		unix.Close(fd)
		return -1, g, err
	}
	g = ground{int64(fs.Type), a.Attributes&statxAttrMountRoot != 0}
	if s.u.priv {
		if clone := cloneMounts(fd, s.spec.ReadOnly); clone >= 0 {
			unix.Close(fd)
			fd = clone
		}
	}
	return fd, g, nil
}

// cloneMounts returns a descriptor of a detached clone of what is mounted at that of fd and
// beneath it, or -1 where that is not permitted.
func cloneMounts(fd int, readOnly bool) int {
	clone, err := unix.OpenTree(fd, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1
	}
	attr := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if readOnly {
		attr.Attr_set = unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(clone, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		unix.Close(clone)
		return -1
	}
	return clone
}

// isRemote knows the filesystems whose server has the last word on permissions.
func isRemote(magic int64) bool {
	switch magic {
	case unix.NFS_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC,
		unix.SMB2_SUPER_MAGIC, unix.AFS_SUPER_MAGIC, unix.V9FS_MAGIC, unix.CEPH_SUPER_MAGIC, unix.CODA_SUPER_MAGIC:
		return true
	}
	return false
}

// isGone says that the source behind a descriptor does not answer any more.
func isGone(err error) bool {
	return err == unix.ENOTCONN || err == unix.ESTALE || err == unix.ECONNABORTED || err == unix.ESHUTDOWN
}

// answers asks the filesystem of a descriptor. Not by stat(2): that may be answered from memory
// long after the source is gone.
func answers(fd int) error {
	var st unix.Statfs_t
	return retry(func() error { return unix.Fstatfs(fd, &st) })
}

// revive is called when a descriptor of the source turned out dead. It opens the root
// again if that is dead too, and says whether there is a living one.
func (s *source) revive() bool {
	if s.spec.Kind == Tmpfs {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.root.desc.Load()
	var a overlay.Attr
	if old != nil && !isGone(answers(old.fd)) {
		return true
	}
	fd, g, err := s.open()
	if err == nil {
		if err = layer.Stat(fd, "", &a); err == nil && (uint32(a.Mode)&unix.S_IFMT != s.typ || g != s.ground) {
			err = errors.New("something else is there now")
		}
		if err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		if !s.gone.Swap(true) {
			hint := ""
			if s.remote && !s.u.priv { // whose mount it is, and not a clone
				hint = " (its mount is busy: take it away with fusermount3 -uz or umount -l before it is mounted again)"
			}
			s.u.logf("%s %s: the source is gone: %v%s", s.spec.Kind, s.path, err, hint)
		}
		return false
	}
	s.gen.Add(1)
	s.root.desc.Swap(newDesc(fd)).done()
	s.gone.Store(false)
	s.u.logf("%s %s: the source is back", s.spec.Kind, s.path)
	return true
}

// answered is called when something of the source worked: one that was only out of reach for a
// while may be back without having been opened again.
func (s *source) answered() {
	if !s.gone.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone.Load() && answers(s.root.desc.Load().fd) == nil {
		s.gone.Store(false)
		s.u.logf("%s %s: the source is back", s.spec.Kind, s.path)
	}
}

// patience is how long a lookup waits for a source that may hang.
const patience = time.Second

// glance is getattr of the root of a file's source, for a lookup: it does not wait for a source that hangs, but
// fills a with what was seen last. (Always to answer so would not do for a file: the kernel takes the size from
// here, and what is mapped beyond it would be lost.)
func (u *Union) glance(s *source, a *overlay.Attr) error {
	answer := make(chan error, 1)
	now := new(overlay.Attr)
	if s.late.Load() == 0 {
		go func() {
			var err error = unix.EIO
			defer func() {
				if p := recover(); p != nil { // the lookup's error, as a panic in it would be, and not the end of the mount
					u.logf("%s %s: %v\n%s", s.spec.Kind, s.path, p, debug.Stack())
				}
				answer <- err
			}()
			if err = u.getattr(s.root, now); err == nil {
				s.seen.Store(now)
			}
		}()
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case err := <-answer:
			*a = *now
			return err
		case <-timer.C:
		}
		s.late.Add(1)
		go func() {
			<-answer
			s.late.Add(-1)
		}()
	}
	*a = s.first
	if seen := s.seen.Load(); seen != nil {
		*a = *seen
	}
	return nil
}

// lacks notes in the log, once, that the source cannot do something. What the objects of the
// descriptors refuse because they are marked immutable or append-only is not that.
func (s *source) lacks(feature string, err error, objects ...int) {
	switch err {
	case unix.EOPNOTSUPP, unix.ENOSYS, unix.ENOLCK, unix.EPERM, unix.ENOTTY:
	default:
		return
	}
	for _, fd := range objects {
		var a overlay.Attr
		if layer.Stat(fd, "", &a) == nil && a.Attributes&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0 {
			return
		}
	}
	if _, said := s.said.LoadOrStore(feature, true); !said {
		s.u.logf("%s %s at %s: no %s: %v", s.spec.Kind, s.path, s.spec.Target, feature, err)
	}
}

func (s *source) close() {
	t := &s.u.nodes
	t.mu.Lock()
	all := make([]*inode, 0, len(s.nodes)+1)
	for _, n := range s.nodes {
		all = append(all, n)
	}
	t.mu.Unlock()
	for _, n := range append(all, s.root) {
		if n != nil {
			n.bury()
		}
	}
	if s.cleanup != nil {
		s.cleanup()
	}
}
