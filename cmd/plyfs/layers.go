package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay/fusefs"
	"github.com/plyfs/plyfs/whiteout"
)

// Some questions are about what the view does not show: names that were deleted, and what
// a layer itself holds. They are answered by looking at the layer's directory on the
// host, at the place the mount gave for it. Only reading, and only for printing.

// isWhiteout reports whether dir, a directory of a layer, says that name is deleted, in
// any of the three ways there are.
func isWhiteout(dir, name string) bool {
	path := filepath.Join(dir, name)
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR:
			return st.Rdev == 0
		case unix.S_IFREG:
			for _, ns := range []whiteout.Namespace{whiteout.Trusted, whiteout.User} {
				if _, err := unix.Lgetxattr(path, ns.Name("whiteout"), nil); err == nil && st.Size == 0 {
					return true
				}
			}
		}
	}
	return unix.Lstat(filepath.Join(dir, whiteout.AUFSWhiteout(name)), &st) == nil
}

// kindOf is what is at a path of the host, in a word; "" if nothing.
func kindOf(path string) string {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return ""
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "device"
	}
	return "special file"
}

// deletedNames returns the names of which dir, a directory of a layer, says that
// they are deleted, in the order of the listing.
func deletedNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if target, ok := whiteout.AUFSTarget(e.Name()); ok {
			names = append(names, target)
		} else if !whiteout.IsAUFSMeta(e.Name()) && isWhiteout(dir, e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// mountOf asks a file for its mount and returns what the mount says of itself, and
// the path below the mount point.
func mountOf(p place) (*about, string, error) {
	var st mountStat
	if err := ask(p, fusefs.CtlStat, &st); err != nil {
		return nil, "", err
	}
	d := &st.Union.Daemon
	if d.PID == 0 {
		return nil, "", fmt.Errorf("%s: only root and the owner of the mount may ask that", p.name)
	}
	var e explanation
	if err := ask(p, fusefs.CtlExplain, &e); err != nil {
		return nil, "", err
	}
	return d, e.Path, nil
}
