package lab

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// shellPatience is how long a shell may take to end after the terminal is gone.
const shellPatience = 2 * time.Second

// shell runs the user's shell on the terminal, in the stage's directory. How it ends says nothing: that
// is the exit code of its last command.
func (s *stage) shell(name string) error {
	cmd, err := s.shellCommand(name)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting a shell (SHELL names it): %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	for {
		select {
		case <-ended:
			return nil
		case sig := <-s.stop:
			// What is typed on the terminal is the shell's: ^C, and ^\ which is for others.
			if sig == unix.SIGINT || sig == unix.SIGQUIT {
				continue
			}
			s.interrupted = true
			_ = cmd.Process.Signal(unix.SIGHUP)
			select {
			case <-ended:
			case <-time.After(shellPatience):
				_ = cmd.Process.Kill()
				<-ended
			}
			return errInterrupted
		}
	}
}

// shellCommand is the user's shell with plyfs on its path, after what the user's own file of settings does to the path, and
// with a prompt that names the exercise.
func (s *stage) shellCommand(name string) (*exec.Cmd, error) {
	program := cmp.Or(os.Getenv("SHELL"), "/bin/sh")
	settings := "PATH=$PLYFS_LAB/" + binDir + ":$PATH\n"
	args, file := []string(nil), "env"
	env := append(s.env(), "PLYFS_LAB="+s.dir)
	switch filepath.Base(program) {
	case "bash":
		file = "bashrc"
		args = []string{"--rcfile", s.path(binDir + "/" + file)}
		settings = "[ -r ~/.bashrc ] && . ~/.bashrc\n" + settings + fmt.Sprintf("unset PROMPT_COMMAND\nPS1='lab %s${PWD#\"$PLYFS_LAB\"}\\$ '\n", name)
	case "zsh":
		file = ".zshrc"
		env = append(env, "ZDOTDIR="+s.path(binDir))
		settings = "[ -r ~/.zshrc ] && . ~/.zshrc\n" + settings + fmt.Sprintf("setopt PROMPT_SUBST\nPS1='lab %s${PWD#$PLYFS_LAB}%%# '\n", name)
	default: // read by the shells of POSIX
		env = append(env, "ENV="+s.path(binDir+"/"+file))
		settings += fmt.Sprintf("PS1='lab %s${PWD#\"$PLYFS_LAB\"}$ '\n", name)
	}
	if err := os.WriteFile(s.path(binDir+"/"+file), []byte(settings), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = s.dir
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, s.out, s.out
	return cmd, nil
}
