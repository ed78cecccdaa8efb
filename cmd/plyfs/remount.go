package main

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/mountopt"
	"github.com/plyfs/plyfs/cmd/plyfs/mounts"
	"github.com/plyfs/plyfs/overlay/fusefs"
)

// remount changes the flags of a live mount: those that words say, the others stay. It is what
// mount -o remount,ro comes to, which asks the helper of the type.
func remount(words []mountopt.Pair, point string) error {
	abs, err := filepath.Abs(point)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return err
	}
	table, err := mounts.Table()
	if err != nil {
		return err
	}
	var there *mounts.Mount
	for i := range table {
		if table[i].Point == abs {
			there = &table[i] // the last one is on top
		}
	}
	if there == nil || there.Type != mounts.Plyfs {
		return fmt.Errorf("%s: no plyfs is mounted there", point)
	}
	var o, has mountopt.Options
	if err := has.Parse("remount," + there.Flags); err != nil { // those that it knows
		return err
	}
	for _, p := range has.Remount {
		_ = o.Set(p)
	}
	was := o.ReadOnly
	for _, p := range words {
		if err := o.Set(p); err != nil {
			return usageError{err}
		}
	}
	if was && !o.ReadOnly {
		about, _, err := mountOf(at(abs))
		if err != nil {
			return err
		}
		if about.Upper == "" {
			return fmt.Errorf("%s: the mount has no upper, and stays read-only", point)
		}
	}
	err = fusefs.Remount(abs, &fusefs.Options{ReadOnly: o.ReadOnly, NoSuid: o.NoSuid, NoDev: o.NoDev, NoExec: o.NoExec, NoAtime: o.NoAtime})
	switch bareError(err) {
	case unix.EBUSY:
		return fmt.Errorf("%s: in use: files are open for writing", point)
	case unix.EPERM:
		return fmt.Errorf("%s: only root may remount", point)
	}
	return err
}
