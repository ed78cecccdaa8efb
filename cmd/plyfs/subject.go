package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer/store"
	"github.com/plyfs/plyfs/layer/store/naming"
	"github.com/plyfs/plyfs/layer/store/userns"
	"github.com/plyfs/plyfs/overlay/fusefs"
)

// What the commands say in their help that look into mounts.
const (
	containerArgument = `CONTAINER is a name or an id; what exists as a path is taken for that.`
	containerFile     = `CONTAINER:PATH is a file in a container, with its name or id; what exists as a path is taken
for that, and ./NAME always is one. Of a container that does not run there are the layers, without
what would be mounted into it.`
)

// subject is what an argument of a command that looks into mounts means: a path, or a container.
type subject struct {
	arg string           // as the user wrote it
	box *store.Container // nil for a path

	unknown bool // a path where nothing is, which is no container either

	// Of a container:
	store *store.Store
	state *store.State
	sub   string // path in its view, or ""
	dir   string // where this process has the view mounted; "": its keeper has to be asked
}

// viewHere is where the view of the one container is that this process was started to look at, see look.go.
var viewHere string

// findSubject finds out what arg means. root is the store's directory, as --root has it.
func findSubject(root, arg string) (*subject, error) {
	name, sub, _ := strings.Cut(arg, ":")
	if viewHere != "" {
		return &subject{arg: arg, box: &store.Container{}, sub: sub, dir: viewHere}, nil
	}
	s := &subject{arg: arg}
	if _, err := os.Lstat(arg); !errors.Is(err, fs.ErrNotExist) || naming.Check("container", name) != nil {
		return s, nil
	}
	s.unknown = true
	if root == "" {
		var err error
		if root, err = store.DefaultRoot(userns.Rootless()); err != nil {
			return s, nil
		}
	}
	if !store.Exists(root) {
		return s, nil
	}
	opened, err := store.Open(root)
	if err != nil {
		return nil, err
	}
	box, err := opened.Container(name)
	if errors.Is(err, store.ErrNotFound) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	state, err := opened.State(box)
	if err != nil {
		return nil, err
	}
	s = &subject{arg: arg, box: box, store: opened, state: state, sub: sub}
	if state.Status == store.Mounted {
		s.dir = mountedAt(state)
	}
	return s, nil
}

// findSubjects finds out what args mean. If there is a container among them that does more than be mounted, an
// ordinary user's process has entered their namespace afterwards: what is before this in a command happens twice.
func findSubjects(root string, args []string) ([]*subject, error) {
	var list []*subject
	inside := false
	for _, arg := range args {
		s, err := findSubject(root, arg)
		if err != nil {
			return nil, err
		}
		inside = inside || s.box != nil && s.dir == ""
		list = append(list, s)
	}
	if inside {
		return list, userns.Enter()
	}
	return list, nil
}

// mountedAt is where this process finds the view of a container that is mounted: another mount
// namespace may have it.
func mountedAt(st *store.State) string {
	there := fmt.Sprintf("/proc/%d/root%s", st.Daemon, st.Mountpoint)
	var about mountStat
	if ask(at(st.Mountpoint), fusefs.CtlStat, &about) != nil || about.Union.Daemon.PID != st.Daemon {
		if ask(at(there), fusefs.CtlStat, &about) == nil && about.Union.Daemon.PID == st.Daemon {
			return there
		}
	}
	return st.Mountpoint
}

// in calls f with the place the subject is at, which is a path or in a view that this process can ask.
func (s *subject) in(f func(place) error) error {
	if s.box == nil {
		err := f(at(s.arg))
		if s.unknown && errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w, and there is no container of that name", err)
		}
		return err
	}
	// Held open, the mount stays while we look: it does not become an empty directory meanwhile.
	root, err := unix.Open(s.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", s.arg, err)
	}
	defer unix.Close(root)
	err = s.below(root, f)
	if err != nil && viewHere != "" && isGone(root) {
		return exitCode(lookAgain)
	}
	return err
}

// below calls f with the place of the subject, seen from the root of the view.
func (s *subject) below(root int, f func(place) error) error {
	dir, base := path.Split(s.sub)
	if base == "" || base == "." || base == ".." {
		dir, base = s.sub, "."
	}
	fd, err := openInRoot(root, "./"+dir)
	if err != nil {
		return fmt.Errorf("%s: %w", s.arg, err)
	}
	defer unix.Close(fd)
	return f(place{fmt.Sprintf("/proc/self/fd/%d/%s", fd, base), s.arg})
}

// openInRoot opens a directory of a view. The links in a container mean files in it, and not the host's.
func openInRoot(root int, path string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for tries := 0; ; tries++ {
		fd, err := unix.Openat2(root, path, &how)
		// EAGAIN: something was renamed somewhere while the kernel went up by "..".
		if err != unix.EINTR && (err != unix.EAGAIN || tries == 1000) {
			return fd, err
		}
	}
}

// isGone tells whether a view was taken away since it was opened, or before.
func isGone(root int) bool {
	var st mountStat
	err := ask(at(fmt.Sprintf("/proc/self/fd/%d/.", root)), fusefs.CtlStat, &st)
	return errors.Is(err, errNoMount) || errors.Is(err, fusefs.ErrDead)
}

// on runs f at the place that the argument of c means. If that is a container whose view this process cannot
// ask, c runs again where it can, and f is called there. purpose is what a container that does not run is started for:
// keepLook, keepShow, or "" if it must run.
func (c *command) on(f *pflag.FlagSet, root, purpose string, do func(place) error) error {
	list, err := findSubjects(root, f.Args())
	if err != nil {
		return err
	}
	s := list[0]
	switch {
	case s.dir != "" && c.name == "watch": // for long, and so without keeping the mount from ending
		return do(place{s.dir, s.arg})
	case s.box == nil || s.dir != "":
		return s.in(do)
	}
	return s.through(purpose, os.Stdout, c.again(f, s.arg))
}

// again returns the arguments to run c with its flags once more, on one argument.
func (c *command) again(f *pflag.FlagSet, arg string) []string {
	args := []string{c.name}
	f.Visit(func(flag *pflag.Flag) {
		if flag.Name != "root" {
			args = append(args, "--"+flag.Name+"="+flag.Value.String())
		}
	})
	return append(args, "--", arg)
}
