package rig

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Plain is a directory with no union at all. Its copies do what `cp --reflink=auto` does, without
// a process for each.
func Plain() *Peer {
	return &Peer{Name: "plain", copy: func(from, to string) error {
		in, err := os.Open(from)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.Create(to)
		if err != nil {
			return err
		}
		if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
			return out.Close()
		}
		_, err = out.ReadFrom(in) // copy_file_range where it can
		return errors.Join(err, out.Close())
	}}
}

// Copy is cp --reflink=auto, with sync followed by an fsync of the copy.
func Copy(name string, sync bool) *Peer {
	return &Peer{Name: name, check: onPath("cp"), copy: func(from, to string) error {
		if err := run("cp", "--reflink=auto", from, to); err != nil || !sync {
			return err
		}
		f, err := os.Open(to)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	}}
}
