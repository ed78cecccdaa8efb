package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/store"
)

var commitCmd = command{
	name:  "commit",
	args:  "CONTAINER [NAME]",
	short: "make an image of a container's changes",
	long: `The writable layer becomes a further layer on the container's image. What is mounted
into the container (volumes, binds) is not part of it. A running container is
packed as it is while it works: stop it, if half-written files matter.`,
	run: runCommit,
}

// committed is what a commit needs to know of containers/NAME/container.json.
type committed struct {
	Image  string `json:"image"`
	Mounts []struct {
		Target string `json:"target"`
	} `json:"mounts"`
}

func runCommit(c *command, args []string) error {
	f := c.flags()
	author := f.StringP("author", "a", "", "`who` made it")
	message := f.StringP("message", "m", "", "`what` changed")
	asJSON := f.Bool("json", false, "print JSON")
	root := storeFlag(f)
	if err := c.parse(f, args, 1, 2); err != nil {
		return err
	}
	name := f.Arg(0)
	if strings.ContainsAny(name, "/") || strings.HasPrefix(name, ".") {
		return usagef("commit: %q is no name of a container", name)
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	var rec committed
	err = store.ReadJSON(s.Path("containers", name, "container.json"), &rec)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("no container %s (plyfs ps -a lists them)", name)
	}
	if err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	changes, done, err := viewOf(s, name, &rec)
	if err != nil {
		return err
	}
	img, err := s.Commit(ctx, rec.Image, changes, store.CommitOptions{Name: f.Arg(1), Author: *author, Comment: *message})
	if e := done(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("commit %s: %w", name, err)
	}
	if *asJSON {
		return printJSON(img)
	}
	fmt.Println(img.ID)
	return nil
}

// viewOf returns what a container changed: by way of its own mount if it runs, else of one
// that ends with done.
func viewOf(s *store.Store, name string, rec *committed) (c image.Changes, done func() error, err error) {
	dir := s.Path("containers", name)
	c.Upper = dir + "/upper"
	lock, err := os.OpenFile(dir+"/lock", os.O_RDWR, 0)
	if err != nil {
		return c, nil, err
	}
	fl := unix.Flock_t{Type: unix.F_WRLCK}
	switch err := unix.FcntlFlock(lock.Fd(), unix.F_OFD_SETLK, &fl); err {
	case nil:
	case unix.EAGAIN, unix.EACCES:
		lock.Close()
		var a, b unix.Stat_t
		if unix.Stat(dir, &a) != nil || unix.Stat(dir+"/merged", &b) != nil || a.Dev == b.Dev {
			return c, nil, fmt.Errorf("container %s is in use, and its mount is not to be seen from here: stop it first", name)
		}
		c.View = dir + "/merged"
		for _, m := range rec.Mounts {
			c.Foreign = append(c.Foreign, m.Target)
		}
		return c, func() error { return nil }, runPlyfs("settle", c.View)
	default:
		lock.Close()
		return c, nil, err
	}
	img, err := s.Image(rec.Image)
	if err != nil {
		lock.Close()
		return c, nil, err
	}
	c.View, err = os.MkdirTemp("", "plyfs-commit-")
	if err != nil {
		lock.Close()
		return c, nil, err
	}
	args := []string{"mount", "--upper", c.Upper, "--work", filepath.Join(dir, "work")}
	for _, l := range img.LayerDirs() {
		args = append(args, "--lower", l)
	}
	// Held until the view is gone: nobody starts the container meanwhile.
	done = func() error {
		err := runPlyfs("umount", c.View)
		os.Remove(c.View)
		lock.Close()
		return err
	}
	if err := runPlyfs(append(args, c.View)...); err != nil {
		os.Remove(c.View)
		lock.Close()
		return c, nil, err
	}
	return c, done, nil
}

// runPlyfs runs another command of this program.
func runPlyfs(args ...string) error {
	out, err := exec.Command("/proc/self/exe", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("plyfs %s: %s", args[0], strings.TrimPrefix(strings.TrimSpace(string(out)), "plyfs: "))
	}
	return nil
}
