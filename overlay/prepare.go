package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/whiteout"
)

func whoami() owner {
	o := owner{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	o.privileged = o.uid == 0
	return o
}

// checkPaths refuses directories that are missing or lie inside each other, before
// anything is opened or made.
func (fs *FS) checkPaths() error {
	c := &fs.cfg
	type named struct {
		what, path, real string
		st               unix.Stat_t
	}
	var all []named
	add := func(what, path string) error {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			real, err = filepath.Abs(real)
		}
		n := named{what: what, path: path, real: real}
		if err == nil {
			err = unix.Stat(real, &n.st)
		}
		switch {
		case errors.Is(err, unix.ENOENT):
			return failure(path, what+" does not exist; create the directory first", nil)
		case err != nil:
			return failure(path, "cannot use "+what, rootCause(err))
		case n.st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return failure(path, what+" is not a directory", nil)
		}
		all = append(all, n)
		return nil
	}
	for _, p := range c.Lowers {
		if err := add("lower layer", p); err != nil {
			return err
		}
	}
	for _, p := range c.DataLowers {
		if err := add("data layer", p); err != nil {
			return err
		}
	}
	lowers := len(all)
	if c.Upper != "" {
		if err := add("upper", c.Upper); err != nil {
			return err
		}
		if c.Work == "" {
			work, err := workBeside(all[lowers].real)
			if err != nil {
				return err
			}
			c.Work = work
		}
		if err := add("work directory", c.Work); err != nil {
			return err
		}
	} else if c.Work != "" {
		return failure(c.Work, "a work directory is of no use without an upper: add --upper, or leave it out", nil)
	}
	for i := range all {
		for j := range i {
			a, b := &all[i], &all[j]
			if a.st.Dev == b.st.Dev && a.st.Ino == b.st.Ino {
				return failure(a.path, fmt.Sprintf("is both %s and %s", b.what, a.what), nil)
			}
			if i < lowers { // layers may lie inside each other; the kernel warns only
				continue
			}
			if inside(a.real, b.real) {
				return failure(a.path, fmt.Sprintf("%s lies inside %s %s; use separate directories", a.what, b.what, b.path), nil)
			}
			if inside(b.real, a.real) {
				return failure(b.path, fmt.Sprintf("%s lies inside %s %s; use separate directories", b.what, a.what, a.path), nil)
			}
		}
	}
	if c.Mountpoint != "" {
		mnt, err := filepath.EvalSymlinks(c.Mountpoint)
		if err == nil {
			mnt, err = filepath.Abs(mnt)
		}
		if err == nil {
			for i := range all {
				if inside(mnt, all[i].real) || (mnt == all[i].real && i >= lowers) {
					return failure(c.Mountpoint, fmt.Sprintf("mount point lies inside %s %s; mount elsewhere", all[i].what, all[i].path), nil)
				}
			}
		}
	}
	return nil
}

// inside says whether path a is strictly below b; both are absolute and resolved.
func inside(a, b string) bool {
	if b == "/" {
		return a != "/"
	}
	return strings.HasPrefix(a, b+"/")
}

// workBeside names a work directory for an upper, and makes it. It is safe beside
// the upper only if that is on the same filesystem.
func workBeside(upper string) (string, error) {
	parent := filepath.Dir(upper)
	var up, st unix.Stat_t
	if err := unix.Stat(parent, &up); err != nil {
		return "", failure(parent, "cannot make a work directory here; name one with --work", err)
	}
	if err := unix.Stat(upper, &st); err != nil || st.Dev != up.Dev || upper == "/" {
		return "", failure(upper, "is a mount point, so that a work directory beside it would be on another filesystem; name one with --work", nil)
	}
	work := filepath.Join(parent, "."+filepath.Base(upper)+".work")
	if err := os.Mkdir(work, 0o700); err != nil && !os.IsExist(err) {
		return "", failure(work, "cannot make the work directory; name one with --work", rootCause(err))
	}
	return work, nil
}

func rootCause(err error) error {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}

// openUpper opens upper and work, locks them against a second mount, and finds out
// what their filesystem can do.
func (fs *FS) openUpper() error {
	c := &fs.cfg
	var err error
	if fs.upper, err = layer.OpenTree(c.Upper, 0, fs.cache, layer.TreeOptions{}); err != nil {
		return failure(c.Upper, "cannot open the upper", err)
	}
	fs.closers = append(fs.closers, fs.upper)
	if fs.work, err = layer.OpenTree(c.Work, 0, fs.cache, layer.TreeOptions{}); err != nil {
		return failure(c.Work, "cannot open the work directory", err)
	}
	fs.closers = append(fs.closers, fs.work)
	if fs.upper.FS.Dev != fs.work.FS.Dev {
		return failure(c.Work, "the work directory must be on the same filesystem as the upper "+c.Upper, unix.EXDEV)
	}
	wfd, err := fs.work.Root.FD()
	if err != nil {
		return failure(c.Work, "cannot open the work directory", err)
	}
	defer fs.work.Root.Done()
	ufd, err := fs.upper.Root.FD()
	if err != nil {
		return failure(c.Upper, "cannot open the upper", err)
	}
	defer fs.upper.Root.Done()
	for _, d := range []struct {
		fd   int
		path string
	}{{ufd, c.Upper}, {wfd, c.Work}} {
		if err := unix.Faccessat(d.fd, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
			return failure(d.path, "not writable", err)
		}
		if err := fs.lock(d.fd, d.path); err != nil {
			return err
		}
	}
	if err := kernelUses(c.Upper, c.Work); err != nil {
		return err
	}
	if err := checkForeign(wfd, c.Work); err != nil {
		return err
	}
	if err := layer.Mkdir(wfd, "work", 0o700); err != nil && err != unix.EEXIST {
		return failure(c.Work, "cannot make the staging directory in it", err)
	}
	fs.stage = fs.work.Root.Child("work")
	if fs.can, err = layer.Probe(fs.stage); err != nil {
		return failure(c.Work, "cannot find out what its filesystem can do", err)
	}
	return fs.chooseNamespace()
}

// lock takes the flock that every mount of ours holds on its upper and its work.
func (fs *FS) lock(fd int, path string) error {
	own, err := layer.Open(fd, "", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return failure(path, "cannot read", err)
	}
	if err := unix.Flock(own, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if err == unix.EWOULDBLOCK && fs.awaitLock(own, fs.cfg.Work) {
			fs.closers = append(fs.closers, fdCloser(own))
			return nil
		}
		unix.Close(own)
		if err == unix.EWOULDBLOCK {
			return failure(path, "is in use by another mount; unmount that first", unix.EBUSY)
		}
		return nil // a filesystem without locks: nothing to compare with
	}
	fs.closers = append(fs.closers, fdCloser(own))
	return nil
}

type fdCloser int

func (c fdCloser) Close() error { return unix.Close(int(c)) }

// kernelUses refuses an upper that the kernel's overlayfs has mounted: it keeps no
// lock that others see, but its options are in the mount table.
func kernelUses(upper, work string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(table)) {
		_, tail, ok := strings.Cut(line, " - overlay ")
		if !ok {
			continue
		}
		f := strings.Fields(tail)
		if len(f) < 2 {
			continue
		}
		for _, o := range strings.Split(f[1], ",") {
			for key, path := range map[string]string{"upperdir=": upper, "workdir=": work} {
				if used, ok := strings.CutPrefix(o, key); ok && sameDir(unescapeMount(used), path) {
					return failure(path, "is in use by a mount of the kernel's overlayfs; unmount that first", unix.EBUSY)
				}
			}
		}
	}
	return nil
}

func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\054`, ",", `\072`, ":").Replace(s)
}

func sameDir(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// checkForeign refuses a work directory that holds what no union put there.
func checkForeign(fd int, path string) error {
	ents, err := layer.ReadDir(fd)
	if err != nil {
		return failure(path, "cannot read the work directory", err)
	}
	for _, e := range ents {
		if e.Name != "work" && e.Name != "index" {
			return failure(path, fmt.Sprintf("the work directory holds %q, which is not ours; use an empty one", e.Name), unix.ENOTEMPTY)
		}
	}
	return nil
}

// chooseNamespace fixes where marks are kept.
func (fs *FS) chooseNamespace() error {
	switch {
	case fs.cfg.UserXattr == On:
		fs.ns = whiteout.User
		if !fs.can.XattrUser {
			fs.degraded.Store(true)
		}
	case fs.can.XattrTrusted:
		fs.ns = whiteout.Trusted
	case fs.cfg.UserXattr == Off:
		return failure(fs.cfg.Upper, "trusted extended attributes cannot be written here; use -o userxattr", unix.EPERM)
	default:
		fs.ns = whiteout.User
		if !fs.can.XattrUser {
			fs.degraded.Store(true)
		}
	}
	if fs.degraded.Load() {
		fs.cfg.logf("%s: no extended attributes here: renaming merged directories is EXDEV, inode numbers and hard links do not outlive copy-up", fs.cfg.Upper)
	}
	return nil
}

// readNamespace is the namespace of a view without an upper.
func (fs *FS) readNamespace() whiteout.Namespace {
	if fs.cfg.UserXattr == On || (fs.cfg.UserXattr == Auto && !fs.self.privileged) {
		return whiteout.User
	}
	return whiteout.Trusted
}

// prepareUpper starts the copy-up engine and clears what a killed mount left.
func (fs *FS) prepareUpper() error {
	var err error
	fs.eng, err = cow.New(cow.Config{
		Work:      fs.stage,
		NS:        fs.ns,
		Threshold: fs.cfg.Threshold,
		Metacopy:  fs.cfg.Metacopy == On,
		Volatile:  fs.cfg.Volatile,
		Squash:    !fs.self.privileged || fs.cfg.SquashUID >= 0,
		Bus:       fs.bus,
		Log:       fs.cfg.logf,
		Upper:     fs.upper.Root,
		Resolve:   fs.resolveRecord,
	})
	if err != nil {
		return failure(fs.cfg.Work, "cannot start copy-up", err)
	}
	if err := fs.checkVolatile(); err != nil {
		return err
	}
	if err := fs.eng.CleanWork(); err != nil {
		return failure(fs.cfg.Work, "cannot clear what an earlier mount left", err)
	}
	return fs.openIndex()
}

// checkVolatile does as the kernel for volatile mounts: the mark says that the upper
// may not be what was written if it is still there at the next mount (kernel:
// overlayfs.rst, "Volatile mount").
func (fs *FS) checkVolatile() error {
	fd, err := fs.stage.FD()
	if err != nil {
		return failure(fs.cfg.Work, "cannot read", err)
	}
	defer fs.stage.Done()
	mark, err := layer.Open(fd, "incompat", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil {
		defer unix.Close(mark)
		var st Attr
		if layer.Stat(mark, "volatile", &st) == nil {
			return failure(fs.cfg.Work, "the upper was mounted volatile and not unmounted: it may lack writes. To use it all the same remove "+
				filepath.Join(fs.cfg.Work, "work/incompat/volatile"), unix.EINVAL)
		}
	}
	if !fs.cfg.Volatile {
		return nil
	}
	if mark < 0 {
		if err := layer.Mkdir(fd, "incompat", 0o700); err != nil {
			return failure(fs.cfg.Work, "cannot write the volatile mark", err)
		}
		if mark, err = layer.Open(fd, "incompat", unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
			return failure(fs.cfg.Work, "cannot write the volatile mark", err)
		}
		defer unix.Close(mark)
	}
	err = layer.Mkdir(mark, "volatile", 0o700)
	if err == nil || err == unix.EEXIST {
		var dir, file int
		if dir, err = layer.Open(mark, "volatile", unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
			defer unix.Close(dir)
			if file, err = layer.Open(dir, "dirty", unix.O_WRONLY|unix.O_CREAT, 0o600); err == nil {
				unix.Close(file)
			}
		}
	}
	if err != nil {
		return failure(fs.cfg.Work, "cannot write the volatile mark", err)
	}
	return nil
}

// clearVolatile takes the mark away: all is on disk.
func (fs *FS) clearVolatile() error {
	if !fs.cfg.Volatile {
		return nil
	}
	if err := fs.syncAll(); err != nil {
		return err
	}
	fd, err := fs.stage.FD()
	if err != nil {
		return err
	}
	defer fs.stage.Done()
	mark, err := layer.Open(fd, "incompat", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(mark)
	if err := layer.RemoveAll(mark, "volatile"); err != nil {
		return err
	}
	_ = layer.Rmdir(fd, "incompat") // stays while there are other marks
	return nil
}
