package graft

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// makeTmpfs makes the empty place of a tmpfs graft: a filesystem in memory that is mounted
// nowhere, or, where that is not permitted, a directory that is removed at the end.
func (s *source) makeTmpfs() error {
	mode := s.spec.Mode
	if mode == 0 {
		mode = 0o1777
	}
	s.path, s.private = "tmpfs", true
	fd, err := mountTmpfs(&s.spec, mode)
	if err == nil {
		return s.plant(fd)
	}
	dir, dirErr := os.MkdirTemp(os.Getenv("XDG_RUNTIME_DIR"), "plyfs-tmpfs-")
	if dirErr != nil {
		return fmt.Errorf("%w; nor can a directory take its place: %v", err, dirErr)
	}
	s.path = dir
	s.cleanup = func() { _ = os.RemoveAll(dir) }
	notMounted := err
	inner := dir + "/root" // the outer one keeps others out
	if err = os.Mkdir(inner, 0o700); err == nil {
		if s.spec.UID != 0 || s.spec.GID != 0 {
			err = ownTmpfs(inner, &s.spec)
		}
		if err == nil {
			err = unix.Chmod(inner, mode)
		}
	}
	fd = -1
	if err == nil {
		fd, err = unix.Open(inner, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err == nil {
		err = s.plant(fd)
	}
	if err != nil {
		s.cleanup()
		return err
	}
	if s.spec.Size > 0 {
		s.u.logf("tmpfs at %s: a directory takes its place (%v), without a limit of its size", s.spec.Target, notMounted)
	}
	return nil
}

// ownTmpfs gives the directory its owner, which only root can, and in a user namespace only to those who exist there.
func ownTmpfs(dir string, spec *Spec) error {
	err := unix.Chown(dir, int(spec.UID), int(spec.GID))
	switch err {
	case nil:
		return nil
	case unix.EINVAL:
		return fmt.Errorf("owner %d:%d does not exist in this user namespace: %w", spec.UID, spec.GID, err)
	}
	return fmt.Errorf("owner %d:%d: %w", spec.UID, spec.GID, err)
}

// mountTmpfs returns the root of a new tmpfs that lives as long as a descriptor of it.
func mountTmpfs(spec *Spec, mode uint32) (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	set := map[string]string{
		"mode": strconv.FormatUint(uint64(mode), 8),
		"uid":  strconv.FormatUint(uint64(spec.UID), 10),
		"gid":  strconv.FormatUint(uint64(spec.GID), 10),
	}
	if spec.Size > 0 {
		set["size"] = strconv.FormatInt(spec.Size, 10)
	}
	for k, v := range set {
		if err := unix.FsconfigSetString(fs, k, v); err != nil {
			return -1, os.NewSyscallError("fsconfig "+k, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("fsmount", err)
	}
	return fd, nil
}
