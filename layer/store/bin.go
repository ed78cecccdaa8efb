package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// bin is where things of the store go that are on their way out. They are in staging/, so that what a command leaves that is
// killed, the next one removes.
type bin struct {
	s     *Store
	stage *Stage // nil: there was no room for a directory, as on a full disk, where removing is what helps
	moved []string
}

func (s *Store) newBin() (*bin, error) {
	stage, err := s.Stage("removed")
	if err != nil && !noRoom(err) {
		return nil, err
	}
	return &bin{s: s, stage: stage}, nil
}

// take moves a file or directory of the store here: its name is free when take returns.
func (b *bin) take(path string) error {
	to := fmt.Sprintf("%s/%d", b.s.Path("staging"), rand.Uint64())
	if b.stage != nil {
		to = fmt.Sprintf("%s/%d", b.stage.Dir, len(b.moved))
	}
	err := Rename(path, to)
	if err == nil {
		b.moved = append(b.moved, to)
	}
	return err
}

// Close removes what is here. It may be called again.
func (b *bin) Close() error {
	if b.stage != nil {
		return b.stage.Close()
	}
	var errs []error
	for _, path := range b.moved {
		err := removeTree(path)
		for errors.Is(err, os.ErrNotExist) { // another command's sweep is at it, too
			err = removeTree(path)
		}
		errs = append(errs, err)
	}
	b.moved = nil
	return errors.Join(errs...)
}

// noRoom reports whether an error is about a disk that is full.
func noRoom(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
