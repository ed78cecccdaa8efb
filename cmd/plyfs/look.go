package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/plyfs/plyfs/cmd/plyfs/keeper"
	"github.com/plyfs/plyfs/layer/store"
	"github.com/plyfs/plyfs/layer/store/self"
)

// lookName is the subcommand with which a keeper looks at the view of its container for somebody else; nobody
// types it.
const lookName = "look-container"

// lookAgain is the exit code of that when the view was taken away meanwhile. Nothing was printed.
const lookAgain = 75

// looker returns what looks at the view of a container that is mounted here.
func looker(s *store.Store, c *store.Container) func(args []string) *exec.Cmd {
	return func(args []string) *exec.Cmd {
		cmd := exec.Command(self.Program())
		cmd.Args = append([]string{"plyfs", lookName, s.ContainerPath(c, "merged")}, args...)
		cmd.Dir = "/"
		return cmd
	}
}

// look is plyfs look-container VIEW COMMAND ARG...: a command that looks into mounts, for which every
// argument is the container whose view that is.
func look(args []string) error {
	if len(args) < 2 || !slices.Contains([]string{"explain", "tree", "diff", "stat", "watch", "settle"}, args[1]) {
		return usagef("%s is for plyfs itself; see plyfs explain", lookName)
	}
	viewHere = args[0]
	c := findCommand(args[1])
	return c.run(c, args[2:])
}

// through has the keeper of a container run plyfs with args, where the view is, and returns when it has
// ended. It has said itself what went wrong.
func (s *subject) through(purpose string, stdout *os.File, args []string) error {
	for {
		err := s.throughOnce(purpose, stdout, args)
		if code := exitCode(0); !errors.As(err, &code) || code != lookAgain {
			return err
		}
	}
}

func (s *subject) throughOnce(purpose string, stdout *os.File, args []string) error {
	session, done, err := s.look(purpose, stdout, args)
	if err != nil {
		return err
	}
	defer done()
	code, err := session.Wait()
	if errors.Is(err, keeper.ErrGone) && args[0] == "watch" {
		return nil // the container has ended, and with it what there is to watch
	}
	if err != nil {
		return fmt.Errorf("container %s: %w", s.box.Name, err)
	}
	if code != 0 {
		return exitCode(code)
	}
	return nil
}

// look starts that process.
func (s *subject) look(purpose string, stdout *os.File, args []string) (session *keeper.Session, done func(), err error) {
	err = whileEnding(func() (err error) {
		if s.state, err = s.store.State(s.box); err != nil {
			return err
		}
		session, done, err = s.lookOnce(purpose, stdout, args)
		return err
	})
	return session, done, err
}

// whileEnding runs f again for as long as the keeper that it asks is just ending, or another process was faster to start
// one: a container that does not run has one for as long as somebody looks at it.
func whileEnding(f func() error) error {
	for until := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		err := f()
		var failure *keeper.Failure
		if !errors.As(err, &failure) || !failure.Ending && !failure.Running || time.Now().After(until) {
			return err
		}
	}
}

func (s *subject) lookOnce(purpose string, stdout *os.File, args []string) (*keeper.Session, func(), error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	defer null.Close()
	session, leave, err := s.view(purpose)
	var failure *keeper.Failure
	if errors.As(err, &failure) {
		err = fmt.Errorf("container %s: %w", s.box.Name, err)
	}
	if err != nil {
		return nil, nil, err
	}
	if err := session.Look(args, [3]*os.File{null, stdout, os.Stderr}); err != nil {
		leave()
		return nil, nil, fmt.Errorf("container %s: %w", s.box.Name, err)
	}
	unforward := session.ForwardSignals()
	return session, func() {
		unforward()
		leave()
	}, nil
}

// view returns a connection with the keeper of a container, as viewOf does, for a purpose that may need a running
// one.
func (s *subject) view(purpose string) (*keeper.Session, func(), error) {
	if purpose != "" {
		return viewOf(s.store, s.box, purpose)
	}
	if s.state.Status.Live() {
		session, err := dialLive(s.store, s.box)
		if err != nil || session != nil {
			return session, func() { session.Close() }, err
		}
	}
	name := s.box.Name
	return nil, nil, fmt.Errorf("container %s does not run, and is not mounted: plyfs start %s, or plyfs mount --container %s DIR, comes first", name, name, name)
}
