package main

import (
	"fmt"
	"os"
	"path"

	"github.com/plyfs/plyfs/cmd/plyfs/cell"
	"github.com/plyfs/plyfs/cmd/plyfs/keeper"
)

var execCmd = command{
	name:  "exec",
	args:  "CONTAINER COMMAND [ARG...]",
	short: "run another command in a running container",
	long:  `Exit codes are those of plyfs run.`,
	run:   runExec,
}

func runExec(c *command, args []string) error {
	f := c.flags()
	f.SetInterspersed(false)
	root := storeFlag(f)
	stdin := f.BoolP("interactive", "i", false, "connect standard input")
	terminal := f.BoolP("tty", "t", false, "give the command a terminal")
	detach := f.BoolP("detach", "d", false, "do not wait for it")
	env := f.StringArrayP("env", "e", nil, "`NAME=VALUE` for the environment; may be repeated")
	envFiles := f.StringArray("env-file", nil, "`file` with a line for each variable; may be repeated")
	dir := f.StringP("workdir", "w", "", "working `dir`ectory (default: the container's)")
	user := f.StringP("user", "u", "", "`NAME|UID[:GROUP|GID]` to run as (default: the container's)")
	if err := c.parse(f, args, 2, -1); err != nil {
		return ours(err)
	}
	if err := wantTerminal(c.name, *stdin && !*detach, *terminal); err != nil {
		return ours(err)
	}
	s, err := openStore(*root)
	if err != nil {
		return ours(err)
	}
	box, err := s.Container(f.Arg(0))
	if err != nil {
		return ours(err)
	}
	given, err := environment(*env, *envFiles)
	if err != nil {
		return ours(err)
	}
	if err := areText(f.Args()[1:], given, []string{*dir, *user}); err != nil {
		return ours(err)
	}
	spec := &cell.Spec{Args: f.Args()[1:], Env: box.Env, Dir: box.Dir, User: box.User, Terminal: *terminal}
	if *terminal {
		spec.Env = mergeEnv(spec.Env, []string{"TERM=xterm"})
	}
	spec.Env = mergeEnv(spec.Env, given)
	if *dir != "" {
		spec.Dir = path.Join(box.Dir, *dir)
		if path.IsAbs(*dir) {
			spec.Dir = path.Clean(*dir)
		}
	}
	if *user != "" {
		spec.User = *user
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return ours(err)
	}
	defer null.Close()
	files := [3]*os.File{null, null, null}
	if !*detach {
		files = [3]*os.File{null, os.Stdout, os.Stderr}
		if *stdin {
			files[0] = os.Stdin
		}
	}
	var session *keeper.Session
	err = whileEnding(func() (err error) { // a daemon that ends may not answer: the next question tells how the container is
		session, err = dialLive(s, box)
		if err == nil && session == nil {
			return fmt.Errorf("container %s is not running; plyfs start %s runs it", box.Name, box.Name)
		}
		if err != nil {
			return err
		}
		if err := session.Exec(spec, files); err != nil {
			session.Close()
			return fmt.Errorf("container %s: %w", box.Name, err)
		}
		forwarded := func() {}
		if !*detach {
			forwarded = session.ForwardSignals()
		}
		if err := session.Started(); err != nil {
			forwarded()
			session.Close()
			return err
		}
		return nil
	})
	if err != nil {
		return ours(err)
	}
	defer session.Close()
	if *detach {
		return nil
	}
	code, err := session.Relay(*stdin)
	if err == nil && code != 0 {
		err = exitCode(code)
	}
	return ours(err)
}
