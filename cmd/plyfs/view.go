package main

import (
	"os"
	"time"

	"github.com/plyfs/plyfs/overlay"
)

// view is the union as this command serves it: with a word about the daemon in plyfs.stat,
// and, if asked, without waiting for the disk.
type view struct {
	*overlay.FS
	noFsync bool
	about   about
}

// about is what a mount says of itself, to root and its owner.
type about struct {
	PID        int       `json:"pid"`
	Since      time.Time `json:"since"`
	Version    string    `json:"version"`
	Mountpoint string    `json:"mountpoint"`
	Lowers     []string  `json:"lowers"`
	DataLowers []string  `json:"data_lowers,omitempty"`
	Upper      string    `json:"upper,omitempty"`
	NoSettle   bool      `json:"no_settle,omitempty"`
}

// viewStat is the union's part of plyfs.stat.
type viewStat struct {
	Daemon about `json:"daemon"`
	Core   any   `json:"core"`
}

func (s *service) about() about {
	return about{
		PID:        os.Getpid(),
		Since:      time.Now(),
		Version:    getVersion().Version,
		Mountpoint: s.mountpoint,
		Lowers:     s.options.Lowers,
		DataLowers: s.options.DataLowers,
		Upper:      s.options.Upper,
		NoSettle:   s.options.NoSettle,
	}
}

// Stat implements fusefs.Stater.
func (v *view) Stat() any { return viewStat{v.about, v.FS.Stat()} }

// Fsync and its like are what -o fsync=0 is about.
func (v *view) Fsync(n *overlay.Node, datasync bool) error {
	if v.noFsync {
		return nil
	}
	return v.FS.Fsync(n, datasync)
}

// FsyncDir is Fsync for directories.
func (v *view) FsyncDir(n *overlay.Node) error {
	if v.noFsync {
		return nil
	}
	return v.FS.FsyncDir(n)
}

// Syncfs is Fsync for everything.
func (v *view) Syncfs() error {
	if v.noFsync {
		return nil
	}
	return v.FS.Syncfs()
}
