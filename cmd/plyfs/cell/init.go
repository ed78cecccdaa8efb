package cell

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// initStage is process 1 of a new cell until it executes the command.
func initStage() {
	runtime.LockOSThread() // capabilities and the parent-death signal are a thread's
	s, err := readSpec()
	if err == nil {
		err = becomeCommand(s)
	}
	fail(err)
}

// fail reports why there is no command, and ends the stage.
func fail(err error) {
	r := report{Code: CodeFailed, Error: err.Error()}
	var e *Error
	if errors.As(err, &e) {
		r.Code = e.Code
	}
	_ = sendReport(reportFD, &r, -1)
	os.Exit(r.Code)
}

func readSpec() (*Spec, error) {
	unix.CloseOnExec(reportFD)
	f := os.NewFile(specFD, "spec")
	defer f.Close()
	var s Spec
	if err := json.NewDecoder(f).Decode(&s); err != nil {
		return nil, fmt.Errorf("reading what to run: %w", err)
	}
	return &s, nil
}

// becomeCommand does not return if it succeeds.
func becomeCommand(s *Spec) error {
	// Nothing that happens here shows outside; what is unmounted outside goes away here.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	m := mounter{root: s.Root}
	if err := m.all(s); err != nil {
		return err
	}
	if s.Hostname != "" {
		if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
			return fmt.Errorf("host name %q: %w", s.Hostname, err)
		}
	}
	if err := pivot(s.Root); err != nil {
		return err
	}
	unix.Umask(0o022)
	// The daemon may be ignoring it, and that would be inherited.
	resetSignal(unix.SIGHUP)
	resetSignal(unix.SIGPIPE)
	if s.Terminal {
		slave, err := newTerminal(reportFD, s)
		if err != nil {
			return err
		}
		if err := becomeTerminal(slave); err != nil {
			return err
		}
		m.console(slave)
	}
	who, err := lookUp(s.User, inside)
	if err != nil {
		return err
	}
	if e := enterDir(s.Dir, true); e != nil {
		return e
	}
	if err := become(who); err != nil {
		return err
	}
	// A change of user takes it away.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("parent-death signal: %w", err)
	}
	env := WithHome(s.Env, who.Home)
	path, e := find(s.Args, env, ".")
	if e != nil {
		return e
	}
	return executeError(s.Args[0], syscall.Exec(path, s.Args, env))
}

// WithHome returns env with HOME in it.
func WithHome(env []string, home string) []string {
	if _, ok := variable(env, "HOME"); ok {
		return env
	}
	return append(env, "HOME="+home)
}

// become drops what root in a container has not, and then root, if the command runs as
// somebody else. It changes every thread: this process has nothing else to do.
func become(who *Identity) error {
	if err := dropBounding(); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	if groupsAllowed() {
		groups := make([]int, len(who.Groups))
		for i, g := range who.Groups {
			groups[i] = int(g)
		}
		if err := syscall.Setgroups(groups); err != nil {
			return fmt.Errorf("groups of the user: %w", err)
		}
	}
	if err := syscall.Setresgid(int(who.GID), int(who.GID), int(who.GID)); err != nil {
		return identityError("group", who.GID, err)
	}
	if err := syscall.Setresuid(int(who.UID), int(who.UID), int(who.UID)); err != nil {
		return identityError("user", who.UID, err)
	}
	return nil
}

func identityError(kind string, id uint32, err error) error {
	if err == unix.EINVAL {
		return fmt.Errorf("%s id %d: not one of yours; /etc/subuid and /etc/subgid, with newuidmap installed, give you more", kind, id)
	}
	return fmt.Errorf("%s id %d: %w", kind, id, err)
}

// groupsAllowed reports whether the user namespace lets groups be set; with a single id it
// does not.
func groupsAllowed() bool {
	b, err := os.ReadFile("/proc/self/setgroups")
	return err != nil || strings.TrimSpace(string(b)) != "deny"
}
