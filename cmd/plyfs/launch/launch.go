// Package launch starts the daemon of a mount, which is this program again, and waits until it has mounted or
// failed: daemon.go has the daemon's side.
//
// A mount in the background starts the program twice, and most of the time of a mount goes into that: into the packages for
// images, registries and plots that a program this size initialises before its main. Whoever starts the daemon
// needs none of them. So it is done here, in the initialisation of a package that imports little: Go initialises packages in the
// order of their import paths, each as soon as its own imports are ready (Go specification, "Program
// initialization"). Without fmt, strings and bufio this one comes right after os. It needs nothing of that order but time:
// a command line that is left to main is served by the same Start.
package launch

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"github.com/plyfs/plyfs/layer/store/self"
)

// MinProcs is how many processors the Go scheduler of a daemon believes in at least, see fusefs.MinProcs.
const MinProcs = 8

// Exit codes of Start; the daemon's own may be others.
const (
	mounted = 0
	failed  = 1
)

func init() {
	if takeReport() || !Background(os.Args) {
		return
	}
	os.Exit(Start())
}

// Background says whether a command line mounts in the background, or is a wrong one: it must not ask for help, the version, or to
// stay in the foreground, which only the flags do. False may also mean that only main can tell.
func Background(argv []string) bool {
	if len(argv) < 2 {
		return false
	}
	args := argv[1:]
	switch {
	case IsHelperName(argv[0]), hasPrefix(args[0], "-o"):
	case args[0] == "mount":
		args = args[1:]
	default:
		return false
	}
	for _, a := range args {
		switch {
		case hasPrefix(a, "--help"), hasPrefix(a, "--version"), hasPrefix(a, "--foreground"), hasPrefix(a, "--debug"):
			return false // with a value, too
		case contains(a, "remount"):
			return false // perhaps an option: no daemon is needed then
		case len(a) > 2 && hasPrefix(a, "--"), !hasPrefix(a, "-"):
		case hasPrefix(a, "-o"), a == "-v": // what follows -o in the same word is its value
		default:
			return false // flags of one letter, perhaps several in one word
		}
	}
	return true
}

// IsHelperName tells by the name the program was started under that no subcommand
// follows: it speaks as mount(8) and fuse-overlayfs do.
func IsHelperName(name string) bool {
	for i := range name {
		if name[i] == '/' {
			return IsHelperName(name[i+1:])
		}
	}
	return name == "fuse-overlayfs" || name == "mount.plyfs" || hasPrefix(name, "mount.fuse")
}

func contains(s, part string) bool {
	for i := range s {
		if hasPrefix(s[i:], part) {
			return true
		}
	}
	return false
}

func hasPrefix(s, prefix string) bool { return len(s) >= len(prefix) && s[:len(prefix)] == prefix }

// Start starts this program again with the same arguments, in a session
// of its own, and waits until it has mounted or failed, which it tells the user. It returns the exit code. The daemon shares no
// descriptor with us but the pipe: whoever waits for our output to end (Podman)
// must not wait for the daemon.
func Start() int {
	code, err := start()
	if err != nil {
		tell(err.Error())
	}
	return code
}

func tell(line string) { os.Stderr.WriteString("plyfs: " + line + "\n") }

func start() (code int, err error) {
	// Not the files of package os, which would set up the runtime's poller for them.
	null, err := syscall.Open(os.DevNull, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return failed, &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	defer syscall.Close(null)
	var pipe [2]int
	if err := syscall.Pipe2(pipe[:], syscall.O_CLOEXEC); err != nil {
		return failed, os.NewSyscallError("pipe2", err)
	}
	report := os.NewFile(uintptr(pipe[0]), "report")
	defer report.Close()
	attr := &syscall.ProcAttr{
		Env:   daemonEnv(),
		Files: []uintptr{uintptr(null), uintptr(null), uintptr(null), uintptr(pipe[1])},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}

	// Nor does it get what else we were started with: a lock file of a script, say.
	closeOnExec()

	// Who interrupts us means the mount; and the second time, at once: it may wait for a source that does not answer.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	// Not os/exec, which first tries out in a process of its own what the kernel can do.
	pid, err := syscall.ForkExec(self.Program(), os.Args, attr)
	syscall.Close(pipe[1])
	if err != nil {
		return failed, errors.New("starting the daemon: " + err.Error())
	}
	told := make(chan bool)
	go func() {
		interrupted := false
		for range stop {
			if interrupted {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				tell("given up before the mount was ready")
				os.Exit(failed)
			}
			interrupted = true
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
		told <- interrupted
	}()
	code, ended := readReport(report)
	signal.Stop(stop) // nothing more comes
	close(stop)
	interrupted := <-told
	if ended && !(interrupted && code == mounted) {
		return code, nil
	}
	var status syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != syscall.EINTR {
			break
		}
	}
	if ended {
		return failed, errors.New("interrupted when the mount was ready: it is gone again")
	}
	how := "exit status " + strconv.Itoa(status.ExitStatus())
	if status.Signaled() {
		how = "signal: " + status.Signal().String()
	}
	return failed, errors.New("the daemon ended before the mount was ready (" + how + "); --log FILE keeps its last words")
}

// closeOnExec marks all descriptors but the standard ones. An error means a kernel without the call, and more for the daemon.
func closeOnExec() {
	const (
		closeRange = 436 // SYS_CLOSE_RANGE, on every architecture
		cloexec    = 4   // CLOSE_RANGE_CLOEXEC
	)
	_, _, _ = syscall.Syscall(closeRange, 3, 1<<31-1, cloexec)
}

// daemonEnv is our environment, and tells the daemon how many processors its Go scheduler is to
// believe in: to raise the number later takes a stop of the world.
func daemonEnv() []string {
	env := append(os.Environ(), readyVariable+"=3")
	if os.Getenv("GOMAXPROCS") == "" {
		env = append(env, "GOMAXPROCS="+strconv.Itoa(max(MinProcs, runtime.NumCPU())))
	}
	return env
}

// readReport prints what the daemon says until it is ready, or has failed, or the
// pipe ends with neither.
func readReport(r io.Reader) (code int, ended bool) {
	var text []byte
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		text = append(text, buf[:n]...)
		for i := 0; i < len(text); i++ {
			if text[i] != '\n' {
				continue
			}
			if code, ended := readLine(string(text[:i])); ended {
				return code, true
			}
			text, i = text[i+1:], -1
		}
		if err != nil {
			return failed, false
		}
	}
}

func readLine(line string) (code int, last bool) {
	switch {
	case hasPrefix(line, reportSay):
		tell(line[len(reportSay):])
	case hasPrefix(line, reportFail):
		code, text := 0, line[len(reportFail):]
		for len(text) > 0 && '0' <= text[0] && text[0] <= '9' {
			code, text = 10*code+int(text[0]-'0'), text[1:]
		}
		if hasPrefix(text, " ") {
			text = text[1:]
		}
		tell(text)
		return max(code, failed), true
	case line == reportReady:
		return mounted, true
	}
	return 0, false
}
