package cell

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// find returns the file to execute for args[0], as a shell would, for a process that is in the
// view already.
func find(args, env []string, dir string) (string, *Error) {
	if len(args) == 0 || args[0] == "" {
		return "", errorf(CodeFailed, "no command: neither the image nor the command line has one")
	}
	name := args[0]
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if err := runnable(path); err != nil {
			return "", executeError(name, err)
		}
		return path, nil
	}
	path, ok := variable(env, "PATH")
	if !ok {
		path = DefaultPath
	}
	var denied error
	for _, d := range filepath.SplitList(path) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		at := filepath.Join(d, name)
		err := runnable(at)
		if err == nil {
			return at, nil
		}
		if errors.Is(err, unix.EACCES) {
			denied = err
		}
	}
	if denied != nil {
		return "", executeError(name, denied)
	}
	return "", errorf(CodeNotFound, "%s: no such command in the container ($PATH is %s)", name, path)
}

// DefaultPath is PATH where nobody sets one.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func runnable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.EACCES
	}
	// With the effective ids: the real ones are still root's.
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}

// executeError says why name cannot be executed, with Docker's code for it.
func executeError(name string, err error) *Error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return errorf(CodeNotFound, "%s: no such file in the container (or its interpreter is missing)", name)
	case errors.Is(err, unix.ENOEXEC):
		return errorf(CodeNotRunnable, "%s: not a program for this machine (%s), and no script with a #! line", name, runtime.GOARCH)
	}
	return errorf(CodeNotRunnable, "%s: cannot be executed: %v", name, err)
}

// variable returns the last value of name in env.
func variable(env []string, name string) (string, bool) {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], name+"="); ok {
			return v, true
		}
	}
	return "", false
}

// enterDir goes to dir. For the command of a container it is made if it is missing; who enters one that runs
// means one that is there.
func enterDir(dir string, make bool) *Error {
	if dir == "" {
		dir = "/"
	}
	err := unix.Chdir(dir)
	if err == unix.ENOENT && make {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return errorf(CodeFailed, "working directory: %v", err)
		}
		err = unix.Chdir(dir)
	}
	if err != nil {
		return errorf(CodeFailed, "working directory %s: %v", dir, err)
	}
	return nil
}
