package overlay

// indexed finds a name through the list of names of its directory: one map access
// for a name that is missing, one statx for a file, whatever the number of layers.
func (s *search) indexed(parent *Node) error {
	idx, err := s.fs.indexOf(parent)
	if err != nil {
		return err
	}
	e := idx.get(s.name)
	if e == nil || e.state != entryLive {
		return nil
	}
	if u := s.d.upper.Load(); u != nil {
		// The list does not say whether a lower object was copied up since it was read.
		more, err := s.try(u, true, false)
		if err != nil || !more {
			return err
		}
		if s.absolute != "" {
			return s.fromRoots(0)
		}
		if s.redirect {
			return s.below(s.d.lowers)
		}
	}
	s.wh = s.wh[:0] // the list has seen to .wh. files
	next := 0       // lowers from here on were not looked at
	for k := -1; k < len(e.more); k++ {
		part := e.part
		if k >= 0 {
			part = e.more[k]
		}
		if part == 0 {
			continue
		}
		dir := s.d.lowers[part-1]
		next = int(part)
		// A file may be metadata only, and a directory redirected: then it is not
		// known what follows.
		last := k == len(e.more)-1 && e.isDir()
		more, err := s.try(dir, false, last)
		if err != nil || !more {
			return err
		}
		if s.absolute != "" {
			return s.fromRoots(dir.Tree().Index)
		}
		if s.redirect || !e.isDir() {
			return s.below(s.d.lowers[next:])
		}
		s.wh = s.wh[:0]
	}
	if !e.isDir() {
		return s.below(s.d.lowers) // a metadata-only file of the upper
	}
	return nil
}
