package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/text"
)

// binDir has plyfs, and what else the lab needs besides the exercise.
const binDir = ".bin"

// step is shell commands, each in a line of its own, with what to look at. A line that begins with "! " must fail.
type step struct{ text, script string }

var errInterrupted = errors.New("interrupted")

// stage is a temporary directory with plyfs on the path, in which commands are run and shown.
type stage struct {
	dir  string // without symlinks
	out  io.Writer
	stop chan os.Signal

	interrupted bool
}

func newStage(prefix string, out io.Writer) (*stage, error) {
	s := &stage{out: out, stop: make(chan os.Signal, 1)}
	// Also who reads no more: to be killed by SIGPIPE would leave the mount.
	signal.Notify(s.stop, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGPIPE)
	if !signal.Ignored(unix.SIGHUP) {
		signal.Notify(s.stop, unix.SIGHUP)
	}
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return nil, err
	}
	s.dir = dir // to be removed, whatever follows
	if s.dir, err = filepath.EvalSymlinks(dir); err == nil {
		err = s.addProgram()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

func (s *stage) addProgram() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Mkdir(s.path(binDir), 0o755); err != nil {
		return err
	}
	return os.Symlink(self, s.path(binDir+"/plyfs"))
}

func (s *stage) path(name string) string { return filepath.Join(s.dir, name) }

// env is the environment of the commands. What has a name, as volumes have, is kept in a store of the stage.
func (s *stage) env() []string {
	return append(os.Environ(), "PATH="+s.path(binDir)+":"+os.Getenv("PATH"), "PLYFS_ROOT="+s.path("store"))
}

// steps runs and shows commands. They end by themselves, so an interrupt is looked for in between.
func (s *stage) steps(list []step, after func()) error {
	for i, step := range list {
		fmt.Fprintf(s.out, "%d. %s\n\n", i+1, strings.Join(text.Wrap(step.text, width), "\n   "))
		if err := s.script(step.script, after); err != nil {
			return err
		}
		fmt.Fprintln(s.out)
	}
	return nil
}

func (s *stage) script(script string, after func()) error {
	for line := range strings.Lines(script) {
		if s.isInterrupted() {
			return errInterrupted
		}
		if err := s.command(strings.TrimSpace(line)); err != nil {
			return err
		}
		after()
	}
	return nil
}

func (s *stage) command(line string) error {
	line, fails := strings.CutPrefix(line, "! ")
	fmt.Fprintf(s.out, "   $ %s\n", line)
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = s.dir
	cmd.Env = append(s.env(), "LC_ALL=C")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	for l := range strings.Lines(out.String()) {
		fmt.Fprint(s.out, "     ", strings.ReplaceAll(l, s.dir+"/", ""))
	}
	var failed *exec.ExitError
	switch {
	case s.isInterrupted():
		return errInterrupted
	case fails && err == nil:
		return fmt.Errorf("%s: this should fail, and does not", line)
	case fails && errors.As(err, &failed):
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", line, err)
	}
	return nil
}

func (s *stage) isInterrupted() bool {
	select {
	case <-s.stop:
		s.interrupted = true
	default:
	}
	return s.interrupted
}

// close unmounts everything, and removes the directory unless it is to be kept.
func (s *stage) close(keep bool) error {
	defer signal.Stop(s.stop)
	if err := unmountBelow(s.dir, s.path(binDir+"/plyfs"), keep); err != nil {
		return err
	}
	if keep {
		return nil
	}
	err := os.RemoveAll(s.dir)
	if err == nil {
		return nil
	}
	// A directory that was made unreadable, or a daemon that still had something to write.
	_ = filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	for range 20 {
		if err = os.RemoveAll(s.dir); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}
