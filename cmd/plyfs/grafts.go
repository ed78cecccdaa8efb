package main

import (
	"github.com/plyfs/plyfs/overlay"
	"github.com/plyfs/plyfs/overlay/graft"
)

// graftedView is view for a mount with grafts.
type graftedView struct {
	*graft.Union
	noFsync bool
	about   about
}

// graft puts what the options name into the union.
func (s *service) graft(fs *overlay.FS) (*graft.Union, error) {
	u, err := graft.New(fs, graft.Config{Specs: s.options.Grafts, ReadOnly: s.options.ReadOnly, NoAtime: s.options.NoAtime, Log: s.say})
	if err != nil {
		return nil, err
	}
	if s.options.Verbose {
		for _, line := range u.Abilities() {
			s.say("%s", line)
		}
	}
	return u, nil
}

// Stat implements fusefs.Stater.
func (v *graftedView) Stat() any { return viewStat{v.about, v.FS().Stat()} }

// Fsync and its like are what -o fsync=0 is about.
func (v *graftedView) Fsync(n graft.Node, datasync bool) error {
	if v.noFsync {
		return nil
	}
	return v.Union.Fsync(n, datasync)
}

// FsyncDir is Fsync for directories.
func (v *graftedView) FsyncDir(n graft.Node) error {
	if v.noFsync {
		return nil
	}
	return v.Union.FsyncDir(n)
}

// Syncfs is Fsync for everything.
func (v *graftedView) Syncfs() error {
	if v.noFsync {
		return nil
	}
	return v.Union.Syncfs()
}
