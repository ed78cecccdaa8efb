package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/store"
	"github.com/plyfs/plyfs/layer/store/self"
)

// packName is the subcommand with which a keeper packs the writable layer of its container; nobody types it.
const packName = "pack-container"

// packer returns what packs the writable layer of a container whose view is mounted here: another
// process, because we serve what it reads.
func packer(s *store.Store, c *store.Container, mounted []string) func(to *os.File) error {
	return func(to *os.File) error {
		cmd := exec.Command(self.Program())
		cmd.Args = append([]string{"plyfs", packName, s.ContainerPath(c, "upper"), s.ContainerPath(c, "merged")}, mounted...)
		cmd.Dir = "/"
		cmd.Stdout = to
		var said bytes.Buffer
		cmd.Stderr = &said
		err := cmd.Run()
		if text := strings.TrimPrefix(strings.TrimSpace(said.String()), "plyfs: "); err != nil && text != "" {
			err = errors.New(text)
		}
		return err
	}
}

// pack is plyfs pack-container UPPER VIEW [MOUNTED...]: it writes the archive to standard output. What
// the kernel has not handed to the view yet, and what was only partly copied up, comes first.
func pack(args []string) error {
	if len(args) < 2 {
		return usagef("%s is for plyfs itself; see plyfs commit", packName)
	}
	c := image.Changes{Upper: args[0], View: args[1], Foreign: args[2:]}
	// Held open, the mount stays: an empty directory would be packed as if everything had been deleted.
	view, err := os.Open(c.View)
	if err == nil {
		defer view.Close()
		err = unix.Syncfs(int(view.Fd()))
	}
	if err == nil {
		here := place{fmt.Sprintf("/proc/self/fd/%d/.", view.Fd()), c.View}
		c.View = here.path
		err = settle(here, false)
	}
	if err == nil {
		err = image.Pack(context.Background(), c, os.Stdout)
	}
	return err
}
