package cell

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// CheckTarget reports whether something can be mounted at target, an absolute and clean path in
// a view, without being hidden by what a cell mounts.
func CheckTarget(target string) error {
	own := "/" + strings.SplitN(target+"/", "/", 3)[1]
	switch {
	case own == "/proc", target == "/dev", target == "/sys":
		return fmt.Errorf("nothing can be mounted at %s: %s is the container's own; choose another target", target, own)
	}
	return nil
}

// Covered returns which of s.Mounted a cell's own mounts hide, and that are therefore to be
// mounted again over those; the outer ones first.
func (s *Spec) Covered() []Mount {
	var out []Mount
	for _, m := range s.Mounted {
		if strings.HasPrefix(m.Target, "/dev/") || strings.HasPrefix(m.Target, "/sys/") {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b Mount) int { return strings.Compare(a.Target, b.Target) })
	return out
}

// outermost returns the targets of mounts, in their order, without those below another one: they come along with it.
func outermost(mounts []Mount) []string {
	var out []string
	for _, m := range mounts {
		if !slices.ContainsFunc(out, func(o string) bool { return strings.HasPrefix(m.Target, o+"/") }) {
			out = append(out, m.Target)
		}
	}
	return out
}

// uncover returns a function that mounts the targets, as the view has them now, over what is mounted
// meanwhile.
func (m *mounter) uncover(targets []string) (again func() error, err error) {
	var trees []int
	closeAll := func() {
		for _, tree := range trees {
			unix.Close(tree)
		}
	}
	for _, target := range targets {
		fd, err := m.open(target[1:])
		if err == nil {
			var tree int
			tree, err = unix.OpenTree(fd, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
			unix.Close(fd)
			if err == nil {
				trees = append(trees, tree)
			}
		}
		if err != nil {
			closeAll()
			return nil, fmt.Errorf("mount at %s of the container: %w", target, err)
		}
	}
	return func() error {
		defer closeAll()
		for i, target := range targets {
			if err := m.putBack(trees[i], target); err != nil {
				return fmt.Errorf("mount at %s of the container: %w", target, err)
			}
		}
		return nil
	}, nil
}

// putBack mounts tree at target, which is made if it is missing.
func (m *mounter) putBack(tree int, target string) error {
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return err
	}
	at, err := m.place(target[1:], st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	return unix.MoveMount(tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// place opens what is to be mounted on: a directory or file, made if it is missing, with its parents.
func (m *mounter) place(name string, dir bool) (int, error) {
	fd, err := m.open(name)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	parent, err := m.place(path.Dir(name), true)
	if err != nil {
		return -1, err
	}
	if dir {
		err = unix.Mkdirat(parent, path.Base(name), 0o755)
	} else {
		err = unix.Mknodat(parent, path.Base(name), unix.S_IFREG|0o644, 0)
	}
	unix.Close(parent)
	if err != nil {
		return -1, fmt.Errorf("making /%s to mount on: %w", name, err)
	}
	return m.open(name)
}
