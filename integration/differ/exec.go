package differ

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// view is a tree that operations run on.
type view struct {
	t     tree
	slots map[string]handle
	walks map[string]*walk // of slots
	uid   int              // that an operation runs as, see as
	// oracle: the kernel's overlayfs, which lists the inode numbers of the upper for hard
	// links made in a directory that nothing was copied up into.
	oracle  bool
	parts   bool // copy-up parts hard links
	user    bool // marks in user. attributes
	noTimes bool // of files
	ownTime bool // the kernel sets times by itself (writeback)
	trades  bool // to trade places sets the time of a directory
	// odd are paths where the kernel disagreed with itself when it had this upper.
	odd map[string]bool
	now unix.Timespec // when the operations began: times from here on are "now"
}

func newView(t tree, now unix.Timespec) view {
	return view{t: t, slots: map[string]handle{}, walks: map[string]*walk{}, now: now}
}

// run runs one operation and says in a line what came of it.
func (v *view) run(o Op) string {
	s, err := v.do(o)
	if err != nil {
		return errText(err)
	}
	if s == "" {
		return "ok"
	}
	return s
}

func errText(err error) string {
	var e unix.Errno
	if errors.As(err, &e) {
		return unix.ErrnoName(e)
	}
	return err.Error()
}

func num(s string) int64 {
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		panic("bad number " + s)
	}
	return n
}

// fill returns size bytes that depend on seed.
func fill(size, seed int64) []byte {
	b := make([]byte, size)
	x := uint64(seed)*2654435761 + 1
	for i := range b {
		x = x*6364136223846793005 + 1442695040888963407
		b[i] = byte(x>>56) | 1
	}
	return b
}

func again[T any](f func() (T, error)) (T, error) {
	for {
		v, err := f()
		if err != unix.EINTR {
			return v, err
		}
	}
}

func again0(f func() error) error {
	_, err := again(func() (int, error) { return 0, f() })
	return err
}

// writeAll writes b at off, or at the end if that is below 0.
func writeAll(h handle, b []byte, off int64) error {
	for len(b) > 0 {
		var n int
		var err error
		if off < 0 {
			n, err = h.append(b)
		} else {
			n, err = h.pwrite(b, off)
			off += int64(n)
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.EIO
		}
		b = b[n:]
	}
	return nil
}

// with opens a path for f.
func (v *view) with(p string, flags int, f func(h handle) error) error {
	h, err := v.t.open(p, flags, 0o644)
	if err != nil {
		return err
	}
	err = f(h)
	if e := h.close(); err == nil {
		err = e
	}
	return err
}

func (v *view) closeSlots() {
	for k, h := range v.slots {
		_ = h.close()
		delete(v.slots, k)
		delete(v.walks, k)
	}
}

func (v *view) do(o Op) (string, error) {
	a := o.Args
	if strings.HasPrefix(o.Name, "f") && o.Name != "flags" {
		h := v.slots[a[0]]
		if h == nil {
			return "", unix.EBADF
		}
		return v.doSlot(o.Name, h, a)
	}
	switch o.Name {
	case "as":
		return v.as(int(num(a[0])), int(num(a[1])), func() (string, error) { return v.do(Op{Name: a[2], Args: a[3:]}) })
	case "open":
		return "", v.openSlot(a[0], a[1], hows[a[2]])
	case "topen":
		excl := 0
		if len(a) > 2 {
			excl = unix.O_EXCL // never to be linked
		}
		return "", v.openSlot(a[0], a[1], unix.O_TMPFILE|unix.O_RDWR|excl)
	case "close":
		h := v.slots[a[0]]
		if h == nil {
			return "", unix.EBADF
		}
		delete(v.slots, a[0])
		delete(v.walks, a[0])
		return "", h.close()
	case "create":
		h, err := v.t.open(a[0], unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, uint32(num(a[1])))
		if err != nil {
			return "", err
		}
		return "", h.close()
	case "put":
		return "", v.with(a[0], unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY, func(h handle) error { return writeAll(h, fill(num(a[1]), num(a[2])), 0) })
	case "write":
		return "", v.with(a[0], unix.O_WRONLY, func(h handle) error { return writeAll(h, fill(num(a[2]), num(a[3])), num(a[1])) })
	case "append":
		return "", v.with(a[0], unix.O_WRONLY|unix.O_APPEND, func(h handle) error { return writeAll(h, fill(num(a[1]), num(a[2])), -1) })
	case "punch":
		return "", v.fallocate(a, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE)
	case "zero":
		return "", v.fallocate(a, unix.FALLOC_FL_ZERO_RANGE)
	case "alloc":
		return "", v.fallocate(a, 0)
	case "kzero":
		return "", v.fallocate(a, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE)
	case "kalloc":
		return "", v.fallocate(a, unix.FALLOC_FL_KEEP_SIZE)
	case "chattr":
		v.closeSlots() // where the kernel asks at open(2), plyfs asks at each write
		return "", v.setFlags(a[0], a[1])
	case "flags":
		return v.flagsOf(a[0])
	case "dwrite":
		return "", v.directWrite(a[0], num(a[1]), num(a[2]), num(a[3]))
	case "dread":
		return v.directRead(a[0], num(a[1]), num(a[2]))
	case "mwrite":
		return "", v.mapWrite(a[0], num(a[1]), num(a[2]), num(a[3]))
	case "copy":
		return "", v.copy(a)
	case "read":
		var out string
		err := v.with(a[0], unix.O_RDONLY, func(h handle) (err error) {
			out, err = readSum(h)
			return err
		})
		return out, err
	case "holes":
		return "", v.with(a[0], unix.O_RDONLY, zerosInHoles)
	case "tmpfile":
		return "", v.with(a[0], unix.O_TMPFILE|unix.O_RDWR, func(h handle) error {
			if err := writeAll(h, fill(num(a[2]), num(a[3])), 0); err != nil {
				return err
			}
			return h.link(a[1])
		})
	case "rmtree":
		return "", v.removeTree(a[0])
	case "ls":
		return v.list(a[0])
	}
	return v.doPath(o.Name, a)
}

// doPath does what takes a path and no open file.
func (v *view) doPath(name string, a []string) (string, error) {
	t, p := v.t, a[0]
	switch name {
	case "stat":
		st, err := t.lstat(p)
		if err != nil {
			return "", err
		}
		return v.attrs(&st), nil
	case "trunc":
		return "", v.truncate(p, num(a[1]))
	case "mkdir":
		return "", t.mkdir(p, uint32(num(a[1])))
	case "rmdir":
		return "", t.rmdir(p)
	case "unlink":
		return "", t.unlink(p)
	case "rename":
		flag := uint(0)
		if len(a) > 2 {
			flag = map[string]uint{"noreplace": unix.RENAME_NOREPLACE, "exchange": unix.RENAME_EXCHANGE, "whiteout": unix.RENAME_WHITEOUT}[a[2]]
		}
		return "", v.rename(p, a[1], flag)
	case "link":
		return "", t.link(p, a[1])
	case "symlink":
		return "", t.symlink(p, a[1])
	case "mknod":
		mode, dev := map[string]uint32{"fifo": unix.S_IFIFO, "sock": unix.S_IFSOCK, "chr": unix.S_IFCHR, "white": unix.S_IFCHR}[a[1]], 0
		if a[1] == "chr" {
			dev = int(unix.Mkdev(7, 260))
		}
		return "", t.mknod(p, mode|0o640, dev)
	case "chmod":
		return "", t.chmod(p, uint32(num(a[1])))
	case "chown":
		return "", t.chown(p, int(num(a[1])), int(num(a[2])))
	case "utimens":
		return "", t.utimens(p, [2]unix.Timespec{{Sec: num(a[1]), Nsec: 123}, {Sec: num(a[1]), Nsec: 456}})
	case "utime":
		return "", t.utimens(p, [2]unix.Timespec{timeOf(a[1]), timeOf(a[2])})
	case "setx":
		flag := 0
		if len(a) > 3 {
			flag = map[string]int{"create": unix.XATTR_CREATE, "replace": unix.XATTR_REPLACE}[a[3]]
		}
		return "", t.setxattr(p, a[1], []byte(a[2]), flag)
	case "acl", "dacl":
		return "", t.setxattr(p, aclNames[name], aclOf(a[1]), 0)
	case "rmacl":
		return "", t.removexattr(p, aclNames[a[1]])
	case "rmx":
		return "", t.removexattr(p, a[1])
	case "getx":
		val, err := t.getxattr(p, a[1])
		return fmt.Sprintf("%q", val), err
	case "listx":
		names, err := t.listxattr(p)
		sort.Strings(names)
		return fmt.Sprint(names), err
	case "readlink":
		return t.readlink(p)
	}
	panic("no operation " + name)
}

func (v *view) fallocate(a []string, mode uint32) error {
	how := unix.O_WRONLY
	if mode&^unix.FALLOC_FL_KEEP_SIZE == 0 {
		how |= unix.O_APPEND // as an append-only file wants it: where plyfs is not asked at open(2) it lets this through
	}
	return v.with(a[0], how, func(h handle) error { return v.allocate(h, mode, a) })
}

func (v *view) copy(a []string) error {
	return v.with(a[0], unix.O_RDONLY, func(in handle) error {
		return v.with(a[1], unix.O_WRONLY, func(out handle) error {
			offIn, offOut, left := num(a[2]), num(a[3]), num(a[4])
			st, err := in.stat()
			if err != nil {
				return err
			}
			left = min(left, st.Size-offIn) // not what a copy within the file adds to it
			for left > 0 {
				n, err := in.copyTo(out, offIn, offOut, left)
				if v.oracle && err == unix.EXDEV {
					n, err = copyThrough(in, out, offIn, offOut, left)
				}
				if err != nil || n == 0 {
					return err
				}
				left -= int64(n)
				offIn += int64(n)
				offOut += int64(n)
			}
			return nil
		})
	})
}

// copyThrough copies by reading and writing: what the kernel's overlayfs leaves to its callers where the two
// files are on different filesystems.
func copyThrough(in, out handle, offIn, offOut, size int64) (int, error) {
	b := make([]byte, size)
	n, err := in.pread(b, offIn)
	if err != nil {
		return 0, err
	}
	return n, writeAll(out, b[:n], offOut)
}

func readSum(h handle) (string, error) {
	all, err := readAll(h)
	if err != nil {
		return "", err
	}
	return sum(all), nil
}

func readAll(h handle) ([]byte, error) {
	var all []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := h.pread(buf, int64(len(all)))
		if err != nil || n == 0 {
			return all, err
		}
		all = append(all, buf[:n]...)
	}
}

// zerosInHoles walks over a file by SEEK_DATA and SEEK_HOLE. Where its holes are is the filesystem's affair
// (a copy-up may make some, or fill them): that nothing is in them is not.
func zerosInHoles(h handle) error {
	all, err := readAll(h)
	if err != nil {
		return err
	}
	for off := int64(0); off < int64(len(all)); {
		data, err := h.seek(off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			data = int64(len(all))
		} else if err != nil {
			return err
		}
		if n := bytes.IndexFunc(all[off:data], func(r rune) bool { return r != 0 }); n >= 0 {
			return fmt.Errorf("data in a hole, at %d", off+int64(n))
		}
		if data == int64(len(all)) {
			return nil
		}
		if off, err = h.seek(data, unix.SEEK_HOLE); err != nil {
			return err
		}
		if off <= data {
			return fmt.Errorf("the hole after %d is at %d", data, off)
		}
	}
	return nil
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return fmt.Sprintf("%d bytes %x", len(b), h[:6])
}

// entries lists the directory at p, sorted.
func (v *view) entries(p string) ([]dirent, error) {
	h, err := v.t.open(p, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer h.close()
	ents, err := h.entries()
	return sorted(ents), err
}

// list lists a directory and checks the inode numbers of the listing.
func (v *view) list(p string) (string, error) {
	ents, err := v.entries(p)
	if err != nil {
		return "", err
	}
	var out []string
	for _, e := range ents {
		s := fmt.Sprintf("%s/%d", e.name, e.typ)
		if e.name != ".." {
			if st, err := v.t.lstat(filepath.Join(p, e.name)); err == unix.ENOENT && v.listsWhiteouts(e) {
				continue
			} else if err != nil {
				s += " " + errText(err)
			} else if st.Ino != e.ino && !v.mayDiffer(filepath.Join(p, e.name), st.Mode) {
				s += " (readdir and stat differ in inode number)"
			}
		}
		out = append(out, s)
	}
	return strings.Join(out, " "), nil
}

type dirent struct {
	name string
	ino  uint64
	typ  uint8
}

func sorted(ents []dirent) []dirent {
	sort.Slice(ents, func(i, j int) bool { return ents[i].name < ents[j].name })
	return ents
}

func (v *view) removeTree(p string) error {
	st, err := v.t.lstat(p)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return v.t.unlink(p)
	}
	ents, err := v.entries(p)
	if err != nil {
		return err
	}
	for _, e := range ents {
		if e.name == "." || e.name == ".." {
			continue
		}
		if err := v.removeTree(filepath.Join(p, e.name)); err != nil && (err != unix.ENOENT || !v.listsWhiteouts(e)) {
			return err
		}
	}
	return v.t.rmdir(p)
}

// attrs are the attributes that must be equal.
func (v *view) attrs(st *unix.Stat_t) string {
	when := "now"
	if t := st.Mtim; t.Sec < v.now.Sec || t.Sec == v.now.Sec && t.Nsec < v.now.Nsec {
		when = fmt.Sprintf("%d.%09d", t.Sec, t.Nsec)
	}
	if v.noTimes && st.Mode&unix.S_IFMT == unix.S_IFREG {
		// Opening a metadata-only file for writing sets its time in the kernel.
		when = "any"
	}
	s := fmt.Sprintf("mode=%o owner=%d:%d mtime=%s", st.Mode, st.Uid, st.Gid, when)
	// Whether a directory shows 1 depends on whether it was copied up, and the kernel
	// copies up when a file in it is opened for writing, plyfs when it is written to.
	// Without an index that is also when hard links part.
	if st.Mode&unix.S_IFMT != unix.S_IFDIR && !v.parts {
		s += fmt.Sprintf(" links=%d", st.Nlink)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFLNK:
		s += fmt.Sprintf(" size=%d", st.Size)
	case unix.S_IFCHR, unix.S_IFBLK:
		s += fmt.Sprintf(" rdev=%x", st.Rdev)
	}
	return s
}
