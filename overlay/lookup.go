package overlay

import (
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

// found is what the layers say of one name, before a node is made of it.
type found struct {
	st    Attr
	dir   *layer.Dir // where the winner is
	name  string
	upper bool

	lowers     []*layer.Dir // a directory: the lowers that merge
	xwhiteouts bool
	ino        uint64 // number to show
	origin     *whiteout.Origin
	originKey  linkKey
	hasOrigin  bool

	metacopy bool       // the data of a metadata-only file is still to be found
	dataDir  *layer.Dir // where it is
	dataName string
	data     Attr
}

// founds saves the allocation of a found, which is large, for every lookup.
var founds = sync.Pool{New: func() any { return new(found) }}

// Lookup finds name in the directory parent, fills a, and returns the node with one
// more reference. ENOENT for a missing name and for one hidden by a whiteout.
func (fs *FS) Lookup(c *Caller, parent *Node, name string, a *Attr) (*Node, error) {
	if parent.d == nil {
		return nil, unix.ENOTDIR
	}
	if len(name) > unix.NAME_MAX {
		return nil, unix.ENAMETOOLONG
	}
	parent.d.names.RLock()
	defer parent.d.names.RUnlock()
	return fs.lookupLocked(parent, name, a)
}

// lookupLocked is Lookup with parent.d.names held.
func (fs *FS) lookupLocked(parent *Node, name string, a *Attr) (*Node, error) {
	if n := fs.nodes.child(parent, name); n != nil {
		there, err := true, error(nil)
		if fs.cfg.LowersChange {
			there, err = fs.stillThere(parent, name, n)
		}
		if there && err == nil {
			if err = fs.Getattr(n, a); err == nil {
				return n, nil
			}
		}
		fs.unref(n, 1)
		if err != nil {
			return nil, err
		}
	}
	f := founds.Get().(*found)
	defer func() {
		*f = found{}
		founds.Put(f)
	}()
	var n *Node
	for n == nil {
		*f = found{}
		seen := fs.altered.Load()
		if err := fs.find(parent, name, f); err != nil {
			return nil, err
		}
		var err error
		if n, err = fs.adopt(parent, name, f, seen); err != nil {
			return nil, err
		}
	}
	n.mu.RLock()
	asFound := n.upper.Load() == f.upper && n.x == nil && n.typ != unix.S_IFDIR
	n.mu.RUnlock()
	if !asFound {
		if err := fs.Getattr(n, a); err != nil {
			fs.unref(n, 1)
			return nil, err
		}
		return n, nil
	}
	*a = f.st
	fs.present(n, a)
	return n, nil
}

// find applies the rules of the union to one name (kernel: ovl_lookup): the topmost
// layer that has it wins, a whiteout ends the search, directories merge until one
// is opaque, redirects change the name that is looked for further down.
func (fs *FS) find(parent *Node, name string, f *found) error {
	if strings.HasPrefix(name, whiteout.PrefixWhiteout) {
		return unix.ENOENT
	}
	d := parent.d
	var s search
	s.fs, s.d, s.f, s.name = fs, d, f, name
	if fs.wantIndex(parent) {
		if err := s.indexed(parent); err != nil {
			return err
		}
		return s.finish()
	}
	if u := d.upper.Load(); u != nil {
		more, err := s.try(u, true, !d.merged())
		if err != nil {
			return err
		}
		if !more {
			return s.finish()
		}
	}
	if s.absolute != "" {
		err := s.fromRoots(0)
		if err != nil {
			return err
		}
		return s.finish()
	}
	if err := s.below(d.lowers); err != nil {
		return err
	}
	if !s.have {
		fs.missed(parent)
	}
	return s.finish()
}

// search is one walk down the layers.
type search struct {
	fs   *FS
	d    *directory // of the view, that is searched
	f    *found
	name string // in the parts still to come; changed by a redirect

	have     bool         // something was found
	redirect bool         // a redirect was followed: names below differ from the view's
	absolute string       // target of an absolute redirect not gone to yet
	rootPath string       // of the last absolute redirect
	rooted   bool         // the layers' roots were searched
	wh       []*layer.Dir // parts passed without finding the name
}

// below tries the lowers from the first on until one says that nothing follows.
func (s *search) below(lowers []*layer.Dir) error {
	for i, l := range lowers {
		more, err := s.try(l, false, i == len(lowers)-1)
		if err != nil {
			return err
		}
		if !more {
			return nil
		}
		if s.absolute != "" {
			return s.fromRoots(l.Tree().Index)
		}
	}
	return nil
}

// try looks for s.name in one directory of one layer. It returns false when the search is over.
func (s *search) try(part *layer.Dir, upper, last bool) (bool, error) {
	fs, f := s.fs, s.f
	fd, err := part.FD()
	if err != nil {
		return false, err
	}
	defer part.Done()
	var st Attr
	if upper && fs.unsettled() {
		err = fs.eng.Look(&st, func() error { return layer.Stat(fd, s.name, &st) })
	} else {
		err = layer.Stat(fd, s.name, &st)
	}
	if err != nil {
		if err == unix.ENOENT || err == unix.ENOTDIR {
			s.wh = append(s.wh, part)
			return true, nil
		}
		if err == unix.ENAMETOOLONG {
			return false, err
		}
		return false, err
	}
	if s.hiddenAbove() {
		return false, nil
	}
	if fs.isWhiteout(s.d, fd, s.name, &st) {
		return false, nil
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return s.directory(part, fd, &st, upper, last)
	}
	if s.have && !f.metacopy {
		return false, nil // a file below a directory
	}
	fs.retypeAt(part.Tree(), fd, s.name, &st)
	if s.have { // the data of a metadata-only file, or another such
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return false, nil
		}
		f.dataDir, f.dataName, f.data = part, s.name, st
	} else {
		f.st, f.dir, f.name, f.upper = st, part, s.name, upper
		s.have = true
		if upper {
			s.origin(fd)
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || !upper && s.nothingBelow(part) {
		f.metacopy = false // this is the data
		return false, nil
	}
	return s.metacopy(fd, upper)
}

// nothingBelow says that no layer could have the data of a metadata-only file found in part: it is
// not asked whether it is one (kernel: ovl_lookup_single and its last).
func (s *search) nothingBelow(part *layer.Dir) bool {
	fs := s.fs
	return len(fs.datas) == 0 && part.Tree() == fs.lowers[len(fs.lowers)-1]
}

// hiddenAbove looks for a .wh. file in the parts that did not have the name.
func (s *search) hiddenAbove() bool {
	for _, part := range s.wh {
		fd, err := part.FD()
		if err != nil {
			continue
		}
		var st Attr
		err = layer.Stat(fd, whiteout.AUFSWhiteout(s.name), &st)
		part.Done()
		if err == nil {
			return true
		}
	}
	s.wh = s.wh[:0]
	return false
}

// directory adds a directory to the merge.
func (s *search) directory(part *layer.Dir, fd int, st *Attr, upper, last bool) (bool, error) {
	fs, f := s.fs, s.f
	if s.have && f.st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return false, nil
	}
	if !s.have {
		f.st, f.dir, f.name, f.upper = *st, part, s.name, upper
		s.have = true
	}
	if !upper {
		f.lowers = append(f.lowers, part.Child(s.name))
	}
	if last {
		// Nothing beneath to hide or to merge, but a redirect may lead to layers that
		// do not have this directory. Who moved it there marked the directory impure.
		if !s.mayRedirectBelow(part) || upper && !s.d.impure.Load() {
			return false, nil
		}
		return s.follow(fd)
	}
	has := fs.marksIn(fd, s.name)
	switch fs.opaque(has, fd, s.name) {
	case whiteout.OpaqueYes:
		return false, nil
	case whiteout.OpaqueXattrWhiteouts:
		f.xwhiteouts = true
	}
	if !has.redirect {
		return true, nil
	}
	return s.follow(fd)
}

// mayRedirectBelow: the last part of this directory may still point elsewhere in
// layers further down.
func (s *search) mayRedirectBelow(part *layer.Dir) bool {
	n := len(s.fs.lowers)
	return n > 0 && (part.Tree().Index < s.fs.lowers[n-1].Index)
}

// follow reads the redirect of what was just found.
func (s *search) follow(fd int) (bool, error) {
	fs := s.fs
	if fs.cfg.NoFollow {
		return true, nil
	}
	var buf [4096]byte
	v := fs.mark(fd, s.name, "redirect", buf[:])
	if len(v) == 0 {
		return true, nil
	}
	r, err := whiteout.ParseRedirect(v)
	if err != nil {
		fs.cfg.logf("%s: redirect %q not followed: %v", s.name, string(v), err)
		return false, unix.EIO
	}
	s.redirect = true
	if r.Absolute {
		s.absolute, s.rootPath = r.Path, r.Path
	} else {
		s.name = r.Path
	}
	s.wh = s.wh[:0]
	return true, nil
}

// metacopy reads whether the file just found has its data further down.
func (s *search) metacopy(fd int, upper bool) (bool, error) {
	if len(s.fs.lowers)+len(s.fs.datas) == 0 {
		return false, nil
	}
	// Only a layer written with metacopy has such files; in an upper directory
	// without lower ones there is nothing to complete.
	var buf [128]byte
	n, err := layer.Getxattr(fd, s.name, s.fs.attr("metacopy"), buf[:])
	if err != nil {
		s.f.metacopy = false
		return false, nil
	}
	if _, err := whiteout.ParseMetacopy(buf[:n]); err != nil {
		return false, unix.EIO
	}
	s.f.metacopy = true
	more, err := s.follow(fd)
	return more, err
}

// origin reads what an upper object was copied up from.
func (s *search) origin(fd int) {
	// The kernel makes links in directories without the impure mark, and moves them there.
	if !s.d.impure.Load() && !s.d.merged() && s.f.st.Nlink < 2 && !s.fs.linkedBefore {
		return
	}
	s.f.originKey, s.f.origin, s.f.hasOrigin = s.fs.readOrigin(fd, s.name)
}

// finish completes what was found: inode number, data of metadata-only files.
func (s *search) finish() error {
	f, fs := s.f, s.fs
	if !s.have {
		return unix.ENOENT
	}
	if s.absolute != "" && (f.st.Mode&unix.S_IFMT == unix.S_IFDIR || f.metacopy) && !s.rooted {
		// The redirect of the last part looked at: its target is in deeper layers.
		if err := s.fromRoots(s.lastIndex()); err != nil {
			return err
		}
	}
	if f.metacopy {
		if err := s.dataOnly(); err != nil {
			return err
		}
	}
	f.ino = fs.viewIno(f.dir.Tree(), f.st.Ino)
	switch {
	case f.hasOrigin && f.st.Mode&unix.S_IFMT != unix.S_IFDIR:
		f.ino = packIno(f.originKey.fs, f.originKey.ino)
	case f.upper && len(f.lowers) > 0:
		var st Attr
		l := f.lowers[0]
		if fd, err := l.FD(); err == nil {
			if layer.Stat(fd, "", &st) == nil {
				f.ino = fs.viewIno(l.Tree(), st.Ino)
			}
			l.Done()
		}
	}
	return nil
}

func (s *search) lastIndex() int {
	if n := len(s.f.lowers); n > 0 {
		return s.f.lowers[n-1].Tree().Index
	}
	if s.f.dataDir != nil {
		return s.f.dataDir.Tree().Index
	}
	if s.f.upper {
		return 0
	}
	return s.f.dir.Tree().Index
}

// dataOnly looks for the data in the data-only layers, which an absolute redirect
// reaches (kernel: overlayfs.rst, "Data-only lower layers").
func (s *search) dataOnly() error {
	if path := s.rootPath; path != "" {
		for _, t := range s.fs.datas {
			dir, name, ok := s.fs.walk(t, path)
			if !ok {
				continue
			}
			fd, err := dir.FD()
			if err != nil {
				continue
			}
			var st Attr
			err = layer.Stat(fd, name, &st)
			dir.Done()
			if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
				s.f.dataDir, s.f.dataName, s.f.data = dir, name, st
				return nil
			}
		}
	}
	return unix.EIO // as the kernel: metadata without data is no file
}
