package differ

import (
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay"
)

// meant says whether a difference in the result of one operation is one that
// docs/differences.md has: each case here is a row there.
func (s *stack) meant(o Op, want, got string) bool {
	if o.Name == "as" {
		o = Op{Name: o.Args[2], Args: o.Args[3:]}
	}
	if s.forbids(o, want, got) {
		return true
	}
	// An open file whose last name is gone has no links. The kernel goes on showing the 1 of a
	// lower file, which nothing was taken from.
	if o.Name == "fstat" && strings.Replace(want, " links=1 ", " links=0 ", 1) == got {
		h := s.plyfs.view.slots[o.Args[0]]
		st, err := h.stat()
		return err == nil && !s.plyfs.view.named(".", st.Ino)
	}
	// Changing what was removed: the kernel has nowhere to copy it up to (the whiteout is in the way, or the
	// directory gone), plyfs does with files. With a directory both fail, each in its way. From here on the two differ.
	if strings.HasPrefix(o.Name, "f") && o.Name != "flags" && s.plyfs.view.slots[o.Args[0]] != nil && strings.HasPrefix(want, "E") {
		st, err := s.plyfs.view.slots[o.Args[0]].stat()
		dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		named := !s.plyfs.view.parts && s.plyfs.view.named(".", st.Ino) // where names part another one may show the number
		if err != nil || named || dir && got == "ok" || !dir && want != "ENOENT" && want != "EEXIST" {
			return false
		}
		for slot, h := range s.plyfs.view.slots { // every one of the file
			if other, err := h.stat(); err != nil || other.Ino != st.Ino {
				continue
			}
			for _, v := range []*view{&s.kernel.view, &s.plyfs.view} {
				_, _ = v.do(op("close", slot))
			}
		}
		return true
	}
	// In passthrough mode who only reads keeps the file that was opened.
	if o.Name == "fread" && s.v.mode == "passthrough" {
		h, ok := s.plyfs.view.slots[o.Args[0]].(*sysHandle)
		if !ok {
			return false
		}
		how, err := unix.FcntlInt(uintptr(h.fd), unix.F_GETFL, 0)
		return err == nil && how&unix.O_ACCMODE == unix.O_RDONLY
	}
	// The kernel finds no access list to take away in a lower file, and needs none in an upper one. Which of them
	// it is depends on who copies up when; after a swap the kernel may be the one with the lower file.
	if o.Name == "rmacl" && (want == "ok" && got == "ENODATA" || want == "ENODATA" && got == "ok") {
		upper := s.plyfs.upper
		if got == "ok" {
			upper = s.kernel.upper
		}
		return unix.Access(filepath.Join(upper, o.Args[0]), unix.F_OK) != nil
	}
	// A name that went and came back may be missed, or come twice.
	if o.Name == "fend" && got == "ok" && strings.Contains(want, "came") {
		return true
	}
	// That something is in the way of a directory xfs says in its own words.
	return o.Name == "rename" && want == "EEXIST" && got == "ENOTEMPTY" && s.c.on() == "xfs"
}

// truncate is truncate(2). Where the size stays, it is not told from O_TRUNC or ftruncate(2) by FUSE, and only those
// set the time (for 0 bytes, on xfs for any): here it is set, by utimensat.
func (v *view) truncate(p string, size int64) error {
	st, err := v.t.lstat(p)
	same := err == nil && st.Size == size && st.Mode&unix.S_IFMT == unix.S_IFREG
	if err := v.t.truncate(p, size); err != nil || !same {
		return err
	}
	return v.asRoot(func() error { return v.t.utimens(p, longAgo) })
}

// allocate is fallocate(2). With writeback the kernel sets the time before it asks, whatever comes of it and whether the
// upper's filesystem does. Here it is set by futimens.
func (v *view) allocate(h handle, mode uint32, a []string) error {
	err := h.fallocate(mode, num(a[1]), num(a[2]))
	if v.ownTime && err != unix.EBADF {
		if err := v.asRoot(func() error { return h.utimens(longAgo) }); err != nil {
			return err
		}
	}
	return err
}

// rename is renameat2(2). ext4 sets the time of the old directory when the rename fails because something is in the new
// one, if it was to leave a whiteout as the kernel's overlayfs asks for; plyfs looks before. And xfs sets that of a directory
// that trades places with a whiteout, which there may be on one side only, after RENAME_WHITEOUT. Here it is set by utimensat.
func (v *view) rename(p, q string, flag uint) error {
	err := v.t.rename(p, q, flag)
	// With RENAME_WHITEOUT here it is a plain rename there, see forKernel.
	plain := flag&^unix.RENAME_WHITEOUT == 0
	if plain && (err == unix.ENOTEMPTY || err == unix.EEXIST) {
		if err := v.asRoot(func() error { return v.t.utimens(filepath.Dir(p), longAgo) }); err != nil {
			return err
		}
	}
	if err != nil || !v.trades || flag&unix.RENAME_EXCHANGE != 0 {
		return err
	}
	if st, err := v.t.lstat(q); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	return v.asRoot(func() error { return v.t.utimens(q, longAgo) })
}

// longAgo is a time for utimens where that of the filesystem is not compared.
var longAgo = [2]unix.Timespec{{Sec: 1000}, {Sec: 1000}}

// listsWhiteouts: in a directory of the lowest layer alone the kernel lists what it does not find.
func (v *view) listsWhiteouts(e dirent) bool { return v.oracle && e.typ == unix.DT_CHR }

// mayDiffer says whether readdir and stat may show different inode numbers of a path.
func (v *view) mayDiffer(p string, mode uint32) bool {
	// The kernel keeps listings of plyfs; a number in one may be from before hard links parted, or from before the
	// copy-up of what can have no origin mark.
	typ := mode & unix.S_IFMT
	return v.oracle || v.parts || v.odd[filepath.Clean(p)] || v.user && typ != unix.S_IFREG && typ != unix.S_IFDIR
}

// dropOwnNumbers takes from the numbers that the kernel showed those of files copied up from one
// with several names that have no entry in the index: it shows the upper's own, plyfs that of
// the lower file (ovl_hash_bylower). The upper is the one that plyfs has now.
func (s *stack) dropOwnNumbers(inos map[string]uint64) {
	for p, ino := range inos {
		var st unix.Stat_t
		real := filepath.Join(s.plyfs.upper, p)
		if unix.Lstat(real, &st) != nil || st.Ino != ino || st.Mode&unix.S_IFMT == unix.S_IFDIR {
			continue
		}
		for _, name := range []string{"trusted.overlay.origin", "user.overlay.origin"} {
			if n, err := unix.Lgetxattr(real, name, nil); err == nil && n > 0 {
				delete(inos, p)
			}
		}
	}
}

// dropWithoutOrigin takes away the numbers of what cannot have an origin mark: with userxattr, all
// but files and directories.
func (s *stack) dropWithoutOrigin(inos map[string]uint64, types map[string]uint32) {
	for p, typ := range types {
		if s.v.config.UserXattr == overlay.On && typ != unix.S_IFREG && typ != unix.S_IFDIR {
			delete(inos, p)
		}
	}
}

// dropParted takes away the numbers of files that parted from their other names and now have their own: the kernel may
// have kept the one from before, see mayDiffer.
func (s *stack) dropParted(inos map[string]uint64, types map[string]uint32, now map[string]uint64) {
	for p := range inos {
		var st unix.Stat_t
		if s.v.config.Index == overlay.Off && types[p] != unix.S_IFDIR && unix.Lstat(filepath.Join(s.plyfs.upper, p), &st) == nil && st.Ino == now[p] {
			delete(inos, p)
		}
	}
}

// named says whether some path at or below p is the inode ino.
func (v *view) named(p string, ino uint64) bool {
	ents, _ := v.entries(p)
	for _, e := range ents {
		if e.name == "." || e.name == ".." {
			continue
		}
		q := filepath.Join(p, e.name)
		if st, err := v.t.lstat(q); err == nil && st.Ino == ino || v.named(q, ino) {
			return true
		}
	}
	return false
}

// reread mounts the upper that plyfs wrote in the kernel, then in plyfs again: both must show
// the tree that was there before. It says what differs.
func (s *stack) reread() string {
	before := s.plyfs.view.Dump()
	if err := s.unmount(); err != nil {
		return err.Error()
	}
	k, p := &s.kernel, &s.plyfs
	if err := s.mountKernel(s.v.reader, k.mnt, p.upper, p.work); err != nil {
		return err.Error()
	}
	v := s.newView(sysTree(k.mnt))
	v.oracle = true
	t := v.Dump()
	if err := unmount(k.mnt); err != nil {
		return err.Error()
	}
	if d := diff("plyfs before", before.Lines, "kernel after", t.Lines); d != "" {
		return "reread:\n" + d
	}
	if err := s.mount(); err != nil {
		return err.Error()
	}
	after := s.plyfs.view.Dump()
	if d := diff("before", before.Lines, "plyfs after", after.Lines); d != "" {
		return "plyfs:\n" + d
	}
	for p := range before.Inos {
		// A directory that was moved has the number of its copy.
		if before.Types[p] == unix.S_IFDIR || s.v.parts {
			delete(before.Inos, p)
		}
	}
	// Where the kernel shows the upper's own number it may have taken the impure mark away that leads to
	// another (ovl_dir_read_impure).
	s.dropOwnNumbers(t.Inos)
	for p := range before.Inos {
		if _, ok := t.Inos[p]; !ok {
			delete(before.Inos, p)
		}
	}
	s.dropWithoutOrigin(before.Inos, before.Types)
	if d := diffInos(before.Inos, after.Inos); d != "" {
		return "plyfs inodes:\n" + d
	}
	return ""
}
