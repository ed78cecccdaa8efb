package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer/store/userns"
)

// The cell of an ordinary user is a user namespace with the user's subordinate ids, if there are any
// (layer/store/userns). So files in the scratch directory may belong to those: who removes it needs the same ids.

// stageWait is before the stage that waits for its ids.
const stageWait = "wait "

// startMapped starts a command as root of a new user namespace.
func startMapped(cmd *exec.Cmd, stage string, env []string, ids func(pid int) error) error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer write.Close()
	cmd.Env = append(env, stageVariable+"="+stageWait+stage)
	cmd.ExtraFiles = []*os.File{read}
	cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
	err = cmd.Start()
	read.Close()
	if err != nil {
		return err
	}
	if err = ids(cmd.Process.Pid); err == nil {
		_, err = write.Write([]byte{1})
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	return err
}

// waitForMaps goes on as the given stage once the ids are mapped: the capabilities come with the exec.
func waitForMaps(stage string) {
	pipe := os.NewFile(3, "maps")
	if n, _ := pipe.Read(make([]byte, 1)); n == 1 { // or whoever started us has given up
		pipe.Close()
		next := self(stage, os.Environ())
		fmt.Fprintln(os.Stderr, "exec in the user namespace:", unix.Exec(next.Path, next.Args, next.Environ()))
	}
	os.Exit(1)
}

// remove removes a scratch directory whose cell has ended.
func remove(scratch string) error {
	err := os.RemoveAll(scratch)
	if !errors.Is(err, fs.ErrPermission) || os.Geteuid() == 0 {
		return err
	}
	env := append(os.Environ(), scratchVariable+"="+scratch)
	cmd := self("remove", env)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if startMapped(cmd, "remove", env, userns.Map) != nil {
		return err
	}
	_ = cmd.Wait()
	return os.RemoveAll(scratch) // in the namespace the directory's own place is not ours to change, perhaps
}
