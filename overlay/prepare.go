package overlay

import (
	"os"

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
		return refusal(c.Work, "the work directory must be on the same filesystem as the upper "+c.Upper, unix.EXDEV)
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
	if err := fs.makeIn(fs.work.Root, "work"); err != nil {
		return failure(c.Work, "cannot make the staging directory in it", err)
	}
	if err := clearACL(wfd, "work"); err != nil {
		return failure(c.Work, "cannot take the access list from the staging directory in it", err)
	}
	fs.stage = fs.work.Root.Child("work")
	if err := fs.checkIncompat(); err != nil {
		return err
	}
	if fs.can, err = layer.Probe(fs.stage, fs.cfg.UserXattr == On); err != nil {
		return failure(c.Work, "cannot find out what its filesystem can do", err)
	}
	if err := fs.chooseNamespace(); err != nil {
		return err
	}
	if !fs.can.WhiteoutDev && !fs.can.WhiteoutName {
		// In a mount of plyfs, say, which takes .wh. names for whiteouts of its own.
		if fs.degraded.Load() {
			return failure(c.Upper, "nothing that says a name is gone can be made here: no device 0:0, no attribute, no .wh. file", unix.EPERM)
		}
		fs.xwhite = true
	}
	return fs.tryOverride()
}

// clearACL takes the access lists from the staging directory, which it has from the directory that the user gave: what is
// staged there would inherit them (kernel: ovl_workdir_create).
func clearACL(fd int, name string) error {
	for _, attr := range [...]string{aclDefault, aclAccess} {
		switch err := layer.Removexattr(fd, name, attr); err {
		case nil, unix.ENODATA, unix.EOPNOTSUPP, unix.ENOSYS:
		default:
			return err
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
	if fs.ns == whiteout.User && fs.cfg.Metacopy == On {
		fs.cfg.Metacopy = Auto
		fs.cfg.logf("%s: marks are user attributes, with which the kernel reads no metadata-only files: metacopy=on has no effect", fs.cfg.Upper)
	}
	if fs.degraded.Load() {
		fs.cfg.logf("%s: no extended attributes here: renaming merged directories is EXDEV, inode numbers and hard links do not outlive copy-up", fs.cfg.Upper)
	}
	return nil
}

// readNamespace is the namespace of a view without an upper. Root of a user namespace can
// neither write nor read trusted attributes.
func (fs *FS) readNamespace() whiteout.Namespace {
	if fs.cfg.UserXattr == On || (fs.cfg.UserXattr == Auto && !(fs.self.privileged && initialUsers())) {
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
		Squash:    !fs.self.privileged || fs.cfg.SquashUID >= 0 || fs.overrides[fs.upper] != "",
		Bus:       fs.bus,
		Log:       fs.cfg.logf,
		Upper:     fs.upper.Root,
		Resolve:   fs.resolveRecord,
		SkipXattr: fs.hiddenAttr,
	})
	if err != nil {
		return failure(fs.cfg.Work, "cannot start copy-up", err)
	}
	if err := fs.eng.CleanWork(); err != nil {
		return failure(fs.cfg.Work, "cannot clear what an earlier mount left", err)
	}
	if err := fs.openIndex(); err != nil {
		return err
	}
	return fs.markVolatile()
}

// Prepare finds out in the background what the first copy-up would otherwise wait for: how the upper's
// filesystem tells data from holes. It is for when nobody waits for the mount any more, and at most once.
func (fs *FS) Prepare() {
	if fs.eng != nil {
		fs.eng.Prepare()
	}
}
