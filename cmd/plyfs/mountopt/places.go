package mountopt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Places are the directories of one mount.
type Places struct {
	Lowers     []string // of both kinds
	Upper      string   // may be empty
	Work       string   // may be empty; need not exist when it is made by the caller
	Mountpoint string
}

// place is where a directory is on its filesystem, whatever mount it is seen
// through: two places are compared by what they are, not by what they are called.
type place struct {
	role, name string
	mount      uint64 // STATX_MNT_ID
	dev        string // major:minor of the filesystem
	path       string // from the root of the filesystem
	stDev      uint64
}

// Check looks at the directories without changing them: each must exist and be a
// directory; none may lie inside another, which is what the kernel calls overlapping;
// the mount point must not lie inside any of them (but may be a lower directory, which
// the mount then covers); upper and work must be in one mount of one filesystem.
// The error is one line with the paths as they were given.
func (p *Places) Check() error {
	table, err := readMounts()
	if err != nil {
		return err
	}
	var places []place
	add := func(role, dir string) error {
		pl, err := table.locate(role, dir)
		if err != nil {
			return err
		}
		for _, other := range places {
			if err := pl.collides(other); err != nil {
				return err
			}
		}
		places = append(places, pl)
		return nil
	}
	for _, dir := range p.Lowers {
		if err := add("lower directory", dir); err != nil {
			return err
		}
	}
	if p.Upper != "" {
		if err := add("upper directory", p.Upper); err != nil {
			return err
		}
	}
	if p.Work != "" && p.Upper != "" {
		if err := add("work directory", p.Work); err != nil {
			return err
		}
		work, upper := places[len(places)-1], places[len(places)-2]
		if work.stDev != upper.stDev || work.mount != upper.mount {
			return fmt.Errorf("work directory %s: not on the same mounted filesystem as the upper directory %s", p.Work, p.Upper)
		}
	}
	return table.checkMountpoint(p.Mountpoint, places)
}

func (a place) collides(b place) error {
	switch {
	case a.dev != b.dev:
		return nil
	case a.path == b.path:
		return fmt.Errorf("%s %s: the same as %s %s", a.role, a.name, b.role, b.name)
	case inside(a.path, b.path):
		return fmt.Errorf("%s %s: inside %s %s", a.role, a.name, b.role, b.name)
	case inside(b.path, a.path):
		return fmt.Errorf("%s %s: inside %s %s", b.role, b.name, a.role, a.name)
	}
	return nil
}

func (t mounts) checkMountpoint(dir string, places []place) error {
	if dir == "" {
		return nil
	}
	var st unix.Stat_t
	name, below := dir, ""
	if unix.Stat(dir, &st) == unix.ENOTCONN {
		// What is left of a mount whose daemon died: its parent can be asked.
		name, below = filepath.Dir(dir), filepath.Base(dir)
	}
	m, err := t.locate("mount point", name)
	if err != nil {
		return err
	}
	m.path, m.name = filepath.Join(m.path, below), dir
	for _, p := range places {
		switch {
		case p.dev != m.dev:
		case inside(m.path, p.path):
			return fmt.Errorf("mount point %s: inside %s %s", dir, p.role, p.name)
		case m.path == p.path && p.role != "lower directory":
			return fmt.Errorf("mount point %s: the same as %s %s", dir, p.role, p.name)
		}
	}
	return nil
}

// inside reports whether path lies strictly below dir.
func inside(path, dir string) bool {
	return path != dir && (dir == "/" || strings.HasPrefix(path, dir+"/"))
}

type mount struct {
	dev, root, point string
}

// mounts is /proc/self/mountinfo by mount id.
type mounts map[uint64]mount

func readMounts() (mounts, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return mounts{}, nil
		}
		return nil, err
	}
	t := mounts{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		var id uint64
		if _, err := fmt.Sscan(f[0], &id); err == nil {
			t[id] = mount{dev: f[2], root: unoctal(f[3]), point: unoctal(f[4])}
		}
	}
	return t, nil
}

// unoctal undoes the kernel's \040 for blanks and the like.
func unoctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			var c byte
			digits := s[i+1 : i+4]
			if strings.Trim(digits, "01234567") == "" {
				for _, d := range []byte(digits) {
					c = c<<3 | (d - '0')
				}
				b.WriteByte(c)
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// locate finds out where dir is. Without /proc the path as seen has to do.
func (t mounts) locate(role, dir string) (place, error) {
	fail := func(err error) (place, error) {
		return place{}, fmt.Errorf("%s %s: %w", role, dir, bare(err))
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return fail(err)
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return fail(err)
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, real, 0, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &st); err != nil {
		return fail(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fail(unix.ENOTDIR)
	}
	p := place{role: role, name: dir, mount: st.Mnt_id, stDev: unix.Mkdev(st.Dev_major, st.Dev_minor)}
	p.dev, p.path = fmt.Sprint(st.Dev_major, ":", st.Dev_minor), real
	if m, ok := t[st.Mnt_id]; ok {
		if rel, err := filepath.Rel(m.point, real); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			p.dev, p.path = m.dev, filepath.Join(m.root, rel)
		}
	}
	return p, nil
}

// bare takes the path out of an error that will be given one.
func bare(err error) error {
	var e *os.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// MakeWork makes a work directory beside upper, named after it, and returns its
// path; made is whether it was not there before. It does so only where that is safe: in a
// directory of the same mounted filesystem that lies in no other layer and that
// nobody but root and the caller can put things into, or that has the sticky bit; what
// is there under the name already must be the caller's own directory.
func MakeWork(upper string, lowers []string) (work string, made bool, err error) {
	refuse := func(why string) (string, bool, error) {
		return "", false, fmt.Errorf("upper directory %s: no work directory can be made beside it (%s); name one", upper, why)
	}
	table, err := readMounts()
	if err != nil {
		return "", false, err
	}
	up, err := table.locate("upper directory", upper)
	if err != nil {
		return "", false, err
	}
	abs, err := filepath.Abs(upper)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return refuse(bare(err).Error())
	}
	dir, base := filepath.Split(abs)
	if base == "" {
		return refuse("it is the root of everything")
	}
	parent, err := table.locate("directory", dir)
	if err != nil {
		return "", false, err
	}
	if parent.mount != up.mount || parent.stDev != up.stDev {
		return refuse("it is the root of its filesystem")
	}
	for _, lower := range lowers {
		l, err := table.locate("lower directory", lower)
		if err != nil {
			return "", false, err
		}
		if l.dev == parent.dev && (l.path == parent.path || inside(parent.path, l.path)) {
			return refuse("it would lie in the lower directory " + lower)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return refuse(err.Error())
	}
	me := uint32(os.Geteuid())
	switch {
	case st.Uid != me && st.Uid != 0:
		return refuse(dir + " belongs to somebody else")
	case st.Mode&unix.S_IWOTH != 0 && st.Mode&unix.S_ISVTX == 0:
		return refuse("anybody can write to " + dir)
	}
	work = filepath.Join(dir, base+".work")
	err = unix.Mkdir(work, 0o700)
	if err != nil && err != unix.EEXIST {
		return refuse(err.Error())
	}
	made = err == nil
	if err := unix.Lstat(work, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != me {
		return refuse(work + " exists and is not a directory of yours")
	}
	return work, made, nil
}
