package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

const lowerLayer, dataLayer = "lower layer", "data layer"

// userDir is a directory the user named.
type userDir struct {
	what, path string
	real       string // absolute, without symbolic links
	dev, ino   uint64
	mount      uint64 // the mount it is on
	cloned     bool   // opened by way of a clone of that mount, where this process may make one
}

// realPaths resolves symbolic links, and remembers the directories on the way: those of layers have most of it in
// common.
type realPaths map[string]string

// resolve returns path, which exists, without symbolic links, and from the root on.
func (r realPaths) resolve(path string) (string, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path { // to leave "link/.." away would be wrong
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return "", err
		}
		return filepath.Abs(real)
	}
	if path == "/" {
		return path, nil
	}
	if real, ok := r[path]; ok {
		return real, nil
	}
	dir, err := r.resolve(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	real := filepath.Join(dir, filepath.Base(path))
	var st unix.Stat_t
	if err := unix.Lstat(real, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		if real, err = filepath.EvalSymlinks(path); err != nil {
			return "", err
		}
	}
	r[path] = real
	return real, nil
}

func findDir(what, path string, r realPaths) (d userDir, err error) {
	d = userDir{what: what, path: path}
	var st unix.Statx_t
	if err = unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &st); err == nil { // first, for its error
		d.real, err = r.resolve(path)
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return d, refusal(path, what+" does not exist; create the directory first", unix.ENOENT)
	case errors.Is(err, unix.ENOTCONN), errors.Is(err, unix.ECONNABORTED): // the latter: it died while it was asked
		return d, refusal(path, "cannot use "+what+": a FUSE daemon that served it is dead; unmount that first", unix.ENOTCONN)
	case err != nil:
		return d, failure(path, "cannot use "+what, rootCause(err))
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return d, refusal(path, what+" is not a directory", unix.ENOTDIR)
	}
	d.dev, d.ino, d.mount = unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino, st.Mnt_id
	d.cloned = what == lowerLayer || what == dataLayer
	return d, nil
}

func (d *userDir) is(o *userDir) bool { return d.dev == o.dev && d.ino == o.ino }

// below says whether d lies strictly inside o, and can be seen there. What another filesystem mounted inside a lower layer has,
// cannot (see [layer.TreeOptions]): the upper of a view of / may be on a tmpfs.
func (d *userDir) below(o *userDir) bool {
	return inside(d.real, o.real) &&
		!(o.cloned && d.mount != 0 && d.mount != o.mount && d.dev != o.dev && layer.MayClone(o.path))
}

// checkPaths refuses directories that are missing or lie inside each other, before anything
// is opened. The work directory, if none was named, is made at the very end.
func (fs *FS) checkPaths() error {
	c := &fs.cfg
	r := realPaths{}
	var all []userDir
	for _, group := range []struct {
		what  string
		paths []string
	}{
		{lowerLayer, c.Lowers},
		{dataLayer, c.DataLowers},
		{"upper", some(c.Upper)},
		{"work directory", some(c.Work)},
	} {
		for _, p := range group.paths {
			d, err := findDir(group.what, p, r)
			if err != nil {
				return err
			}
			all = append(all, d)
		}
	}
	if c.Upper == "" && c.Work != "" {
		return refusal(c.Work, "a work directory is of no use without an upper: name one, or leave it out", unix.EINVAL)
	}
	if err := overlaps(all); err != nil {
		return err
	}
	upper := len(c.Lowers) + len(c.DataLowers)
	if err := fs.checkMountpoint(all, upper, r); err != nil {
		return err
	}
	if c.Upper == "" || c.Work != "" {
		return nil
	}
	work, made, err := workBeside(&all[upper])
	if err != nil {
		return err
	}
	c.Work = work
	if made {
		fs.made = append(fs.made, func() { _ = os.Remove(work) })
	}
	d, err := findDir("work directory", work, r)
	if err != nil {
		return err
	}
	for i := range all {
		if err := overlap(&d, &all[i]); err != nil {
			return err
		}
	}
	return nil
}

func some(path string) []string {
	if path == "" {
		return nil
	}
	return []string{path}
}

// overlaps refuses directories of which one is another or lies inside it.
func overlaps(all []userDir) error {
	type file struct{ dev, ino uint64 }
	known, named := make(map[file]bool, len(all)), make(map[string]bool, len(all))
	for i := range all {
		known[file{all[i].dev, all[i].ino}] = true
		named[all[i].real] = true
	}
	apart := len(known) == len(all)
	for i := 0; i < len(all) && apart; i++ {
		for dir := all[i].real; dir != "/" && apart; {
			dir = filepath.Dir(dir)
			apart = !named[dir]
		}
	}
	if apart {
		return nil
	}
	for i := range all { // the pair to name
		for j := range i {
			if err := overlap(&all[i], &all[j]); err != nil {
				return err
			}
		}
	}
	return nil
}

// overlap refuses two directories of which one is the other or lies inside it: a change in one place
// would show in another (kernel: ovl_check_overlapping_layers).
func overlap(a, b *userDir) error {
	switch {
	case a.is(b) && a.what == b.what:
		return refusal(a.path, "is named twice as a "+a.what, unix.ELOOP)
	case a.is(b):
		return refusal(a.path, fmt.Sprintf("is both %s and %s", b.what, a.what), unix.ELOOP)
	case a.below(b):
		return refusal(a.path, fmt.Sprintf("%s lies inside %s %s; use separate directories", a.what, b.what, b.path), unix.ELOOP)
	case b.below(a):
		return refusal(b.path, fmt.Sprintf("%s lies inside %s %s; use separate directories", b.what, a.what, a.path), unix.ELOOP)
	}
	return nil
}

// checkMountpoint refuses a mount point inside a layer, where the view would be part of
// itself. A lower layer itself may be one: it was opened before it is covered.
func (fs *FS) checkMountpoint(all []userDir, upper int, r realPaths) error {
	if fs.cfg.Mountpoint == "" {
		return nil
	}
	m, err := findDir("mount point", fs.cfg.Mountpoint, r)
	if err != nil {
		return nil // whoever mounts says what is wrong with it
	}
	for i := range all {
		switch d := &all[i]; {
		case m.below(d):
			return refusal(m.path, fmt.Sprintf("mount point lies inside %s %s; mount elsewhere", d.what, d.path), unix.ELOOP)
		case m.is(d) && i >= upper:
			return refusal(m.path, "is both "+d.what+" and mount point; mount elsewhere", unix.ELOOP)
		}
	}
	return nil
}

// inside says whether path a is strictly below b; both are absolute and resolved.
func inside(a, b string) bool {
	if b == "/" {
		return a != "/"
	}
	return len(a) > len(b) && a[len(b)] == '/' && strings.HasPrefix(a, b)
}

// workBeside names a work directory for an upper, and makes it if it is not there. It is
// safe beside the upper only if that is on the same filesystem and mount.
func workBeside(upper *userDir) (work string, made bool, err error) {
	parent := filepath.Dir(upper.real)
	var up unix.Stat_t
	if err := unix.Stat(parent, &up); err != nil {
		return "", false, failure(parent, "cannot make a work directory here; name one", err)
	}
	if upper.dev != up.Dev || upper.real == "/" {
		return "", false, refusal(upper.path, "the upper is a mount point, and a work directory beside it would be on another filesystem; name one on the upper's", unix.EXDEV)
	}
	work = filepath.Join(parent, "."+filepath.Base(upper.real)+".work")
	switch err := unix.Mkdir(work, 0o700); err {
	case nil:
		return work, true, nil
	case unix.EEXIST:
		return work, false, nil
	default:
		return "", false, failure(work, "cannot make the work directory; name one on the upper's filesystem", err)
	}
}

func rootCause(err error) error {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}
