package cell

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// mounter puts what programs expect into a view, in the mount namespace of the cell.
type mounter struct{ root string }

// MountPoints are the directories in the root of a view on which a cell mounts. They must be
// there: one that the cell made would become part of the writable layer.
var MountPoints = []string{"proc", "dev", "sys", "tmp"}

// devices are the host's device nodes that a cell has.
var devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// What is not to be read, and not to be written, by root in the cell; the lists of Docker.
var (
	masked = []string{"proc/kcore", "proc/keys", "proc/timer_list", "proc/sched_debug", "proc/scsi", "proc/acpi", "proc/asound", "sys/firmware", "sys/devices/virtual/powercap"}
	frozen = []string{"proc/sys", "proc/sysrq-trigger", "proc/irq", "proc/bus", "proc/fs"}
)

const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// Masked and Frozen are the paths that a cell hides, and those it makes read-only.
func Masked() []string { return absolute(masked) }
func Frozen() []string { return absolute(frozen) }

func absolute(names []string) []string {
	var out []string
	for _, n := range names {
		out = append(out, "/"+n)
	}
	return out
}

func (m *mounter) all(s *Spec) error {
	again, err := m.uncover(outermost(s.Covered()))
	if err != nil {
		return err
	}
	steps := []func() error{m.proc, m.dev, m.sys, m.protect}
	if s.Tmp {
		steps = append(steps, m.tmp)
	}
	for _, step := range append(steps, again) {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// open returns an O_PATH descriptor of name in the view. Links of the image lead nowhere
// but into the view.
func (m *mounter) open(name string) (int, error) {
	dir, err := unix.Open(m.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: m.root, Err: err}
	}
	defer unix.Close(dir)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := openat2(dir, name, &how)
	if err != nil {
		return -1, &os.PathError{Op: "open in the view", Path: "/" + name, Err: err}
	}
	return fd, nil
}

func openat2(dir int, name string, how *unix.OpenHow) (int, error) {
	for {
		fd, err := unix.Openat2(dir, name, how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// mount mounts at name in the view.
func (m *mounter) mount(source, name, fstype string, flags uintptr, data string) error {
	fd, err := m.open(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Mount(source, "/proc/self/fd/"+strconv.Itoa(fd), fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s at /%s of the container: %w", source, name, err)
	}
	return nil
}

// bind mounts a directory or file of the host, with what is mounted in it.
func (m *mounter) bind(source, name string) error {
	return m.mount(source, name, "", unix.MS_BIND|unix.MS_REC, "")
}

func (m *mounter) proc() error {
	err := m.mount("proc", "proc", "proc", quiet, "")
	if errors.Is(err, unix.EPERM) {
		// Where parts of /proc are covered, a user namespace gets no other one. The
		// processes it shows are the host's.
		return m.bind("/proc", "proc")
	}
	return err
}

func (m *mounter) sys() error {
	err := m.mount("sysfs", "sys", "sysfs", quiet|unix.MS_RDONLY, "")
	if errors.Is(err, unix.EPERM) { // the network namespace is not ours
		if err = m.bind("/sys", "sys"); err != nil {
			return err
		}
		m.freeze("sys")
	}
	return err
}

func (m *mounter) dev() error {
	if err := m.mount("tmpfs", "dev", "tmpfs", unix.MS_NOSUID|unix.MS_STRICTATIME, "mode=755,size=65536k"); err != nil {
		return err
	}
	fd, err := m.open("dev")
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, d := range []struct {
		name string
		mode uint32
	}{{"pts", 0o755}, {"shm", 0o1777}, {"mqueue", 0o755}} {
		if err := unix.Mkdirat(fd, d.name, d.mode); err != nil {
			return fmt.Errorf("/dev/%s: %w", d.name, err)
		}
	}
	for _, l := range [][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"}, {"/proc/kcore", "core"}} {
		if err := unix.Symlinkat(l[0], fd, l[1]); err != nil {
			return fmt.Errorf("/dev/%s: %w", l[1], err)
		}
	}
	for _, name := range append([]string{"console"}, devices...) {
		f, err := unix.Openat(fd, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o666)
		if err != nil {
			return fmt.Errorf("/dev/%s: %w", name, err)
		}
		unix.Close(f)
		if name == "console" {
			continue // see console
		}
		if err := m.bind("/dev/"+name, "dev/"+name); err != nil {
			return err
		}
	}
	options := "newinstance,ptmxmode=0666,mode=0620"
	err = m.mount("devpts", "dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, options+",gid=5")
	if errors.Is(err, unix.EINVAL) { // no group 5 in this user namespace
		err = m.mount("devpts", "dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, options)
	}
	if err != nil {
		return err
	}
	if err := m.mount("shm", "dev/shm", "tmpfs", quiet, "mode=1777,size=65536k"); err != nil {
		return err
	}
	err = m.mount("mqueue", "dev/mqueue", "mqueue", quiet, "")
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EPERM) { // not in every kernel
		return nil
	}
	return err
}

// tmp mounts an empty /tmp, for a view that has none; one that the image has stays, and is
// part of the storage.
func (m *mounter) tmp() error {
	return m.mount("tmpfs", "tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
}

// protect hides and freezes the parts of /proc and /sys through which root changes the
// host. Only what is there; a user namespace protects itself.
func (m *mounter) protect() error {
	for _, name := range frozen {
		_ = m.over(name, func(at string, _ *unix.Stat_t) error {
			return unix.Mount(at, at, "", unix.MS_BIND|unix.MS_REC, "")
		})
		m.freeze(name)
	}
	for _, name := range masked {
		_ = m.over(name, func(at string, st *unix.Stat_t) error {
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				return unix.Mount("tmpfs", at, "tmpfs", unix.MS_RDONLY, "size=0k")
			}
			return unix.Mount("/dev/null", at, "", unix.MS_BIND, "")
		})
	}
	return nil
}

// over calls mount with a path that means name in the view, whatever links an image has there.
func (m *mounter) over(name string, mount func(at string, st *unix.Stat_t) error) error {
	fd, err := m.open(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	return mount("/proc/self/fd/"+strconv.Itoa(fd), &st)
}

// freeze makes a mount and what is mounted below it read-only; not what is no mount.
func (m *mounter) freeze(name string) {
	fd, err := m.open(name)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	_ = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

// console shows the terminal as /dev/console too. The view is the root already.
func (m *mounter) console(slave *os.File) {
	inside := mounter{root: "/"}
	_ = inside.mount("/proc/self/fd/"+strconv.Itoa(int(slave.Fd())), "dev/console", "", unix.MS_BIND, "")
}

// pivot makes root, a mount point, "/", and lets go of the old one.
func pivot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return &os.PathError{Op: "chdir", Path: root, Err: err}
	}
	err := unix.PivotRoot(".", ".")
	if err == unix.EINVAL {
		// The host's root is the one it booted with (initramfs), which cannot be left so.
		if err = unix.Mount(".", "/", "", unix.MS_MOVE, ""); err == nil {
			err = unix.Chroot(".")
		}
	} else if err == nil {
		err = unix.Unmount(".", unix.MNT_DETACH)
	}
	if err == nil {
		err = unix.Chdir("/")
	}
	if err != nil {
		return fmt.Errorf("making %s the root: %w", root, err)
	}
	return nil
}
