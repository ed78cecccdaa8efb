package fusefs

import (
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	direntSize = 24                                               // struct fuse_dirent without its name
	plusSize   = int(unsafe.Sizeof(fuse.EntryOut{})) + direntSize // struct fuse_direntplus likewise
	entryBatch = 256                                              // entries asked of the union at a time
)

type dirent struct {
	ino, off  uint64
	len, kind uint32
}

// putDirent writes one struct fuse_dirent at b[0:], which has room for it.
func putDirent(b []byte, e *Entry) {
	d := (*dirent)(unsafe.Pointer(&b[0]))
	d.ino, d.off = e.Ino, e.Off
	d.len, d.kind = uint32(len(e.Name)), uint32(e.Type)
	n := direntSize + copy(b[direntSize:], e.Name)
	clear(b[n:pad8(n)])
}

func pad8(n int) int { return (n + 7) &^ 7 }

// readdir lists names. One full answer is as large as the caller's buffer
// (FUSE rounds getdents64's count to pages since Linux 6.16).
func (s *session[N]) readdir(r *request, n N) unix.Errno {
	return s.list(r, n, false)
}

// readdirplus lists names, and attributes where they will be wanted. An entry
// with node id 0 tells the kernel nothing but the name.
func (s *session[N]) readdirplus(r *request, n N) unix.Errno {
	return s.list(r, n, true)
}

func (s *session[N]) list(r *request, n N, plus bool) unix.Errno {
	in := decode[fuse.ReadIn](r)
	if in == nil {
		return unix.EIO
	}
	given, head := adviceNames, direntSize
	if plus {
		given, head = s.listings.advise(r.hdr.Pid), plusSize
		if s.stale.has(r.hdr.NodeId) {
			given = adviceAttrs
		}
	}
	read := func(off uint64, buf []Entry) (int, error) { return s.fs.ReadDir(n, off, buf) }
	l := s.listing(in.Fh)
	if l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		read = l.ReadDir
	}
	size := min(int(in.Size), len(r.out))
	off, files := in.Offset, 0
	buf := r.w.entries[:]
	defer clear(buf)
fill:
	for {
		got, err := read(off, buf)
		if err != nil && r.n == 0 {
			return errno(err)
		}
		for i := range buf[:got] {
			e := &buf[i]
			end := r.n + pad8(head+len(e.Name))
			if end > size {
				break fill
			}
			b := r.out[r.n:end]
			if plus && l != nil {
				*(*fuse.EntryOut)(unsafe.Pointer(&b[0])) = fuse.EntryOut{} // nothing the kernel could keep
			} else if plus {
				s.plusEntry(r, n, e, (*fuse.EntryOut)(unsafe.Pointer(&b[0])), given)
			}
			putDirent(b[head-direntSize:], e)
			if e.Type != unix.DT_DIR {
				files++
			}
			r.n, off = end, e.Off
		}
		if got < len(buf) {
			break
		}
	}
	if l == nil {
		s.listings.listed(r.hdr.Pid, r.hdr.NodeId, in.Offset, given, files)
		if plus && files == 0 {
			s.stale.remove(r.hdr.NodeId)
		}
	}
	return 0
}

// plusEntry fills the attribute half of an entry; a name that vanished or cannot
// be looked up stays a name.
func (s *session[N]) plusEntry(r *request, dir N, e *Entry, o *fuse.EntryOut, want advice) {
	*o = fuse.EntryOut{}
	switch {
	case want == adviceNames && e.Type != unix.DT_DIR:
		return
	case e.Name == "." || e.Name == "..":
		return
	case s.shares != nil && !s.shares.Ahead(dir, e.Name):
		return
	}
	a := &r.w.attr
	n, err := s.fs.Lookup(&r.caller, dir, e.Name, a)
	if err != nil {
		return
	}
	s.fillEntry(o, n, a)
}
