package keeper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/cell"
	"github.com/plyfs/plyfs/layer/store/userns"
)

// OCI is a runtime that follows the OCI runtime specification: crun, runc and the like. It
// gets a bundle in the container's directory, and the mounted view as root filesystem.
//
// The runtime's process ends once the command runs; the command then becomes our child,
// because we are a subreaper.
type OCI struct {
	path, dir, id string
	root          string // where the view is mounted
	execs         atomic.Int64

	mu       sync.Mutex   // held while a command is launched
	commands map[int]bool // process ids that somebody waits for; guarded by mu
}

func newOCI(path, dir, id string) (Runtime, error) {
	return &OCI{path: path, dir: filepath.Join(dir, "bundle"), id: id, commands: map[int]bool{}}, nil
}

// ociCommand is a command that an OCI runtime started.
type ociCommand struct {
	process  *os.Process
	terminal *os.File
	done     chan struct{}
	state    *os.ProcessState
	err      error
}

func (c *ociCommand) Terminal() *os.File    { return c.terminal }
func (c *ociCommand) ID() int               { return c.process.Pid }
func (c *ociCommand) Done() <-chan struct{} { return c.done }

func (c *ociCommand) Signal(sig unix.Signal) error {
	err := c.process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

func (c *ociCommand) Wait() (int, error) {
	<-c.done
	if c.err != nil {
		return cell.CodeFailed, c.err
	}
	return cell.ExitCode(c.state), nil
}

func (c *ociCommand) Close() {
	if c.terminal != nil {
		c.terminal.Close()
	}
}

// run runs the runtime with these arguments and returns its complaint, if it has one.
func (o *OCI) run(stdio [3]*os.File, args ...string) error {
	log := filepath.Join(o.dir, "log")
	_ = os.Remove(log)
	global := []string{"--root", filepath.Join(o.dir, "run"), "--log", log, "--log-format", "json"}
	if strings.HasPrefix(filepath.Base(o.path), "crun") {
		// Nothing is limited; and rootless, or with old kinds of cgroups, crun cannot make any.
		global = append(global, "--cgroup-manager", "disabled")
	}
	cmd := exec.Command(o.path, append(global, args...)...)
	cmd.Dir = o.dir
	for _, s := range []struct {
		to   *os.File
		from int
	}{{stdio[0], 0}, {stdio[1], 1}, {stdio[2], 2}} {
		switch {
		case s.to == nil:
		case s.from == 0:
			cmd.Stdin = s.to
		case s.from == 1:
			cmd.Stdout = s.to
		default:
			cmd.Stderr = s.to
		}
	}
	err := cmd.Run()
	if err == nil {
		return nil
	}
	return o.complaint(log, err)
}

// complaint turns the last line of a runtime's log into an error.
func (o *OCI) complaint(log string, err error) error {
	b, _ := os.ReadFile(log)
	text := ""
	for line := range bytes.Lines(b) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && entry.Msg != "" && entry.Level != "warning" {
			text = entry.Msg
		}
	}
	name := filepath.Base(o.path)
	if text == "" {
		return fmt.Errorf("%s: %w", name, err)
	}
	code := cell.CodeFailed
	switch lower := strings.ToLower(text); {
	case strings.HasPrefix(lower, "chdir "), strings.HasPrefix(lower, "mkdir "): // the working directory
	case strings.HasPrefix(lower, "open executable"):
		code = cell.CodeNotRunnable
	case strings.Contains(lower, "no such file or directory"), strings.Contains(lower, "not found"):
		code = cell.CodeNotFound
	case strings.Contains(lower, "permission denied"), strings.Contains(lower, "exec format error"):
		code = cell.CodeNotRunnable
	}
	return &cell.Error{Code: code, Text: name + ": " + text}
}

// Start implements Runtime.
func (o *OCI) Start(s *cell.Spec, stdio [3]*os.File) (Command, error) {
	o.root = s.Root
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("subreaper: %w", err)
	}
	o.reap()
	o.Close() // what an earlier keeper left, if it was killed
	for _, d := range []string{o.dir, o.dir + "/run"} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	config, err := bundle(s, userns.Rootless())
	if err != nil {
		return nil, err
	}
	if err := writeJSON(o.dir+"/config.json", config); err != nil {
		return nil, err
	}
	c, err := o.launch(s.Terminal, stdio, func(extra []string) []string {
		return append(append([]string{"create", "--bundle", o.dir}, extra...), o.id)
	})
	if err != nil {
		return nil, err
	}
	if err := o.run([3]*os.File{}, "start", o.id); err != nil {
		_ = c.Signal(unix.SIGKILL)
		c.Close()
		o.Close()
		return nil, err
	}
	return c, nil
}

// Exec implements Runtime.
func (o *OCI) Exec(s *cell.Spec, stdio [3]*os.File) (Command, error) {
	p, err := process(s, o.root)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(o.dir, fmt.Sprintf("exec-%d.json", o.execs.Add(1)))
	if err := writeJSON(file, p); err != nil {
		return nil, err
	}
	defer os.Remove(file)
	c, err := o.launch(s.Terminal, stdio, func(extra []string) []string {
		return append(append([]string{"exec", "--detach", "--process", file}, extra...), o.id)
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// launch has the runtime start a command, and takes over the command's process and terminal.
func (o *OCI) launch(terminal bool, stdio [3]*os.File, args func(extra []string) []string) (*ociCommand, error) {
	pidFile := filepath.Join(o.dir, fmt.Sprintf("pid-%d", o.execs.Add(1)))
	defer os.Remove(pidFile)
	extra := []string{"--pid-file", pidFile}
	c := &ociCommand{done: make(chan struct{})}
	var master chan *os.File
	if terminal {
		path, done, err := o.consoleSocket(&master)
		if err != nil {
			return nil, err
		}
		defer done()
		extra = append(extra, "--console-socket", path)
		stdio = [3]*os.File{}
	}
	if err := o.adopt(c, stdio, pidFile, args(extra)); err != nil {
		return nil, err
	}
	var err error
	if terminal {
		select {
		case c.terminal = <-master:
		case <-time.After(10 * time.Second):
		}
		if c.terminal == nil {
			_ = c.process.Kill()
			err = fmt.Errorf("%s did not hand over the terminal", filepath.Base(o.path))
		}
	}
	go func() {
		c.state, c.err = c.process.Wait()
		close(c.done)
		o.mu.Lock()
		delete(o.commands, c.process.Pid)
		o.mu.Unlock()
	}()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// adopt runs the runtime, and makes c the process that it left and whose id it wrote down.
func (o *OCI) adopt(c *ociCommand, stdio [3]*os.File, pidFile string, args []string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.run(stdio, args...); err != nil {
		return err
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("%s: %w", pidFile, err)
	}
	if c.process, err = os.FindProcess(pid); err != nil {
		return err
	}
	o.commands[pid] = true
	return nil
}

// consoleSocket makes the socket over which the runtime sends a terminal.
func (o *OCI) consoleSocket(master *chan *os.File) (path string, done func(), err error) {
	dir, err := unix.Open(o.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &os.PathError{Op: "open", Path: o.dir, Err: err}
	}
	name := fmt.Sprintf("console-%d", o.execs.Add(1))
	// A short name for any length of path; not of /proc/self: it is for another process.
	path = fmt.Sprintf("/proc/%d/fd/%d/%s", os.Getpid(), dir, name)
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		if err = unix.Bind(socket, &unix.SockaddrUnix{Name: path}); err == nil {
			err = unix.Listen(socket, 1)
		}
	}
	if err != nil {
		unix.Close(dir)
		return "", nil, fmt.Errorf("console socket: %w", err)
	}
	ch := make(chan *os.File, 1)
	go func() {
		defer close(ch)
		conn, _, err := unix.Accept4(socket, unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		f := os.NewFile(uintptr(conn), "console")
		defer f.Close()
		buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := unix.Recvmsg(conn, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err == nil {
			if files := rights(oob[:n]); len(files) > 0 {
				ch <- files[0]
				closeAll(files[1:])
			}
		}
	}()
	*master = ch
	return path, func() {
		_ = unix.Shutdown(socket, unix.SHUT_RDWR) // wakes the goroutine
		unix.Close(socket)
		_ = unix.Unlinkat(dir, name, 0)
		unix.Close(dir)
	}, nil
}

// Close implements Runtime.
func (o *OCI) Close() {
	if _, err := os.Stat(filepath.Join(o.dir, "run", o.id)); err == nil {
		_ = o.run([3]*os.File{}, "delete", "--force", o.id)
	}
}
