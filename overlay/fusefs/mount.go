package fusefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What can be wrong with a mount, for callers that react to it (errors.Is).
var (
	// ErrNoDevice: the kernel has no FUSE, or /dev/fuse is missing.
	ErrNoDevice = errors.New("no FUSE device")
	// ErrNotPermitted: neither mount(2) nor fusermount3 was allowed to.
	ErrNotPermitted = errors.New("mounting is not permitted")
	// ErrMounted: a live plyfs is mounted there.
	ErrMounted = errors.New("a plyfs is mounted there already; plyfs umount ends it")
	// ErrDead: the mount there lost its daemon; Detach it and mount again.
	ErrDead = errors.New("mount point of a dead daemon")
)

const (
	devicePath = "/dev/fuse"
	fsType     = "fuse.plyfs"
	subtype    = "plyfs"

	fuseMajorDev, fuseMinorDev = 10, 229 // MISC_MAJOR, FUSE_MINOR of linux/miscdevice.h
)

// Check says what stands in the way of mounting at path, and changes nothing. Mount does it
// too; whoever prepares much for a mount does it first.
func Check(path string) error {
	// The kernel may know the attributes of a mount's root, and it is the daemon who is asked
	// here whether he lives.
	n, err := unix.Getxattr(path, CtlStat, nil)
	if died(err) {
		return fmt.Errorf("%s: %w", path, ErrDead)
	}
	answered := err == nil && n > 0
	var st unix.Stat_t
	switch err := unix.Stat(path, &st); {
	case died(err):
		return fmt.Errorf("%s: %w", path, ErrDead)
	case err == unix.ENOENT:
		return fmt.Errorf("%s: mount point does not exist; create the directory first", path)
	case err != nil:
		return fmt.Errorf("%s: cannot use mount point: %w", path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%s: mount point is not a directory", path)
	}
	if answered {
		var up unix.Stat_t
		if unix.Stat(path+"/..", &up) == nil && st.Dev != up.Dev {
			return fmt.Errorf("%s: %w", path, ErrMounted)
		}
	}
	fd, err := openDevice()
	if err != nil {
		return err
	}
	unix.Close(fd)
	if os.Geteuid() == 0 {
		return nil
	}
	if _, err := exec.LookPath(fusermountName); err != nil {
		return fmt.Errorf("mount %s: %w", path, errNoHelper)
	}
	return nil
}

// died says that a mount has no daemon; ECONNABORTED is for a request that its death overtakes.
func died(err error) bool { return err == unix.ENOTCONN || err == unix.ECONNABORTED }

// mountDevice mounts at path and returns the connection's descriptor.
func mountDevice(path string, o *Options) (int, error) {
	if os.Geteuid() != 0 {
		return fusermount(path, o)
	}
	fd, err := mountDirect(path, o)
	if err == unix.EPERM {
		// Root of nothing much (a container without CAP_SYS_ADMIN): the helper may be
		// allowed to.
		if fd, helperErr := fusermount(path, o); helperErr == nil {
			return fd, nil
		}
		return -1, fmt.Errorf("mount %s: %w (it takes CAP_SYS_ADMIN, or fusermount3)", path, ErrNotPermitted)
	}
	return fd, err
}

func openDevice() (int, error) {
	fd, err := unix.Open(devicePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch err {
	case nil:
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Rdev != unix.Mkdev(fuseMajorDev, fuseMinorDev) {
			unix.Close(fd)
			return -1, fmt.Errorf("%s: %w (it is something else, not the character device %d:%d)", devicePath, ErrNoDevice, fuseMajorDev, fuseMinorDev)
		}
		return fd, nil
	case unix.ENOENT, unix.ENODEV, unix.ENXIO, unix.ENOTDIR:
		return -1, fmt.Errorf("%s: %w (load the fuse module: modprobe fuse)", devicePath, ErrNoDevice)
	case unix.EACCES, unix.EPERM:
		return -1, fmt.Errorf("%s: %w (user %d may not open it for reading and writing; chmod 666 it, as distributions do)", devicePath, ErrNotPermitted, os.Geteuid())
	}
	return -1, &os.PathError{Op: "open", Path: devicePath, Err: err}
}

func mountDirect(path string, o *Options) (int, error) {
	fd, err := openDevice()
	if err != nil {
		return -1, err
	}
	flags, data := o.kernelOptions()
	data = fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,%s", fd, unix.S_IFDIR, os.Geteuid(), os.Getegid(), data)
	if err := unix.Mount(o.Source, path, fsType, flags, data); err != nil {
		unix.Close(fd)
		switch err {
		case unix.EPERM:
			return -1, err
		case unix.ENODEV:
			return -1, fmt.Errorf("mount %s: %w in this kernel", path, ErrNoDevice)
		case unix.EINVAL:
			if o.Context != "" {
				return -1, fmt.Errorf("mount %s: the kernel does not take %s: no such label, or no SELinux", path, o.Context)
			}
		}
		return -1, &os.PathError{Op: "mount", Path: path, Err: err}
	}
	return fd, nil
}

// kernelOptions translates o for mount(2). default_permissions is always there:
// the union leaves the question who may do what to the kernel, which asks it of
// the attributes it has cached.
func (o *Options) kernelOptions() (flags uintptr, data string) {
	flags = o.mountFlags()
	opts := []string{"default_permissions", "max_read=" + strconv.Itoa(maxIO)}
	if o.AllowOther {
		opts = append(opts, "allow_other")
	}
	if o.Context != "" {
		opts = append(opts, o.Context)
	}
	return flags, strings.Join(opts, ",")
}

func (o *Options) mountFlags() (flags uintptr) {
	for _, f := range []struct {
		on   bool
		flag uintptr
	}{
		{o.ReadOnly, unix.MS_RDONLY},
		{o.NoSuid, unix.MS_NOSUID},
		{o.NoDev, unix.MS_NODEV},
		{o.NoExec, unix.MS_NOEXEC},
		{o.NoAtime, unix.MS_NOATIME},
	} {
		if f.on {
			flags |= f.flag
		}
	}
	return flags
}

// Remount gives the live mount at path the flags of o; EBUSY if it is to be read-only, and files are open
// for writing.
func Remount(path string, o *Options) error {
	flags := unix.MS_REMOUNT | o.mountFlags()
	if !o.NoAtime {
		flags |= unix.MS_RELATIME // with no word about access times mount(2) leaves them as they are
	}
	if err := unix.Mount("none", path, "", flags, ""); err != nil {
		return &os.PathError{Op: "remount", Path: path, Err: err}
	}
	return nil
}

// Detach takes a mount away, now and lazily: open files stay with whoever has
// them. It is for mounts whose daemon is dead.
func Detach(path string) error { return unmount(path, true) }

// Unmount ends the mount at path; EBUSY while it is in use.
func Unmount(path string) error { return unmount(path, false) }

func unmount(path string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(path, flags)
	if err == unix.EPERM {
		return fusermountUnmount(path, lazy)
	}
	if err != nil {
		return &os.PathError{Op: "unmount", Path: path, Err: err}
	}
	return nil
}

// tuneDevice returns the device number of the mount, 0 if it cannot be known, and raises its read-ahead: the
// kernel starts every FUSE mount with 128 KiB. That needs root and sysfs, and is worth no error.
func tuneDevice(path string) uint64 {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &st) != nil {
		return 0
	}
	file := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", st.Dev_major, st.Dev_minor)
	_ = os.WriteFile(file, []byte(strconv.Itoa(readAhead>>10)), 0)
	return unix.Mkdev(st.Dev_major, st.Dev_minor)
}
