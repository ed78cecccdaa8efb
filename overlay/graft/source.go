package graft

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

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
	cleanup func()
	nodes   map[key]*inode // guarded by table.mu

	gen atomic.Uint32 // times the root was opened

	mu   sync.Mutex // guards gone; held while the root is opened again
	gone bool       // and the log says so

	said sync.Map // features the log has named as missing
}

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
	if spec.Create {
		if _, err := os.Stat(s.path); errors.Is(err, os.ErrNotExist) {
			if err := os.MkdirAll(s.path, 0o755); err != nil {
				return nil, fmt.Errorf("bind %s: cannot make the source: %w", s.path, err)
			}
		}
	}
	fd, err := s.open()
	if err != nil {
		return nil, fmt.Errorf("%s %s: cannot open the source: %w", spec.Kind, s.path, err)
	}
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
	n := &inode{typ: s.typ, src: s, top: true, key: keyOf(1, &a), ino: s.u.viewIno(&a)}
	n.desc.Store(newDesc(fd))
	s.root = n
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

// open opens the root by its path. Links in it are followed: it is the user who named it.
// Where it may, it opens a clone of the mounts there: nobody is kept from unmounting the original,
// and what is read-only is so for the kernel too.
func (s *source) open() (int, error) {
	if s.u.priv {
		if fd := cloneMounts(s.path, s.spec.ReadOnly); fd >= 0 {
			return fd, nil
		}
	}
	return unix.Open(s.path, unix.O_PATH|unix.O_CLOEXEC, 0)
}

// cloneMounts returns a descriptor of a detached clone of what is mounted at path and
// beneath it, or -1 where that is not permitted.
func cloneMounts(path string, readOnly bool) int {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1
	}
	attr := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if readOnly {
		attr.Attr_set = unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		unix.Close(fd)
		return -1
	}
	return fd
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
	fd, err := s.open()
	if err == nil {
		if err = answers(fd); err == nil {
			err = layer.Stat(fd, "", &a)
		}
		if err == nil && uint32(a.Mode)&unix.S_IFMT != s.typ {
			err = errors.New("something else is there now")
		}
		if err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		if !s.gone {
			s.gone = true
			s.u.logf("%s %s: the source is gone: %v", s.spec.Kind, s.path, err)
		}
		return false
	}
	s.gen.Add(1)
	s.root.desc.Swap(newDesc(fd)).done()
	s.u.logf("%s %s: the source is back", s.spec.Kind, s.path)
	s.gone = false
	return true
}

// lacks notes in the log, once, that the source cannot do something.
func (s *source) lacks(feature string, err error) {
	switch err {
	case unix.EOPNOTSUPP, unix.ENOSYS, unix.ENOLCK, unix.EPERM, unix.ENOTTY:
	default:
		return
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
