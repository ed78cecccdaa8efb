package keeper

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/cell"
	"github.com/plyfs/plyfs/layer/store"
)

// Command is a running command, of a [Runtime].
type Command interface {
	// Terminal is the master of its terminal, or nil.
	Terminal() *os.File
	ID() int // process id
	Signal(unix.Signal) error
	Done() <-chan struct{}
	Wait() (code int, err error)
	Close()
}

// Runtime runs commands in a view.
type Runtime interface {
	// Start runs the container's own command. An error may be a *cell.Error.
	Start(s *cell.Spec, stdio [3]*os.File) (Command, error)
	// Exec runs another one beside it.
	Exec(s *cell.Spec, stdio [3]*os.File) (Command, error)
	// Close takes away what is left after the command has ended.
	Close()
}

// Mounter serves the view of a container at its merged directory. It calls ready when the
// view can be used, and takes it away when quit is closed; it returns when the writable
// layer is complete. discarded is asked then: nothing needs to be completed.
type Mounter func(ready func() error, quit <-chan struct{}, discarded func() bool) error

// Keeper is the daemon of one running container.
type Keeper struct {
	Store     *store.Store
	Container *store.Container
	Runtime   Runtime // nil: run nothing, only show the view to the first connection
	Spec      *cell.Spec
	Log       func(format string, args ...any)
	// Pack writes the writable layer to a file, as an archive; the view is there.
	Pack func(to *os.File) error
	// Look returns the command that looks at the view, as args say.
	Look func(args []string) *exec.Cmd

	quit      chan struct{} // closed by end: the view is to be taken away
	quitOnce  sync.Once
	begun     chan struct{} // closed when the command was started, or the view is there, or nobody will
	begunOnce sync.Once
	looks     sync.WaitGroup // processes that look, and other commands; none is added once ended is set

	mu      sync.Mutex
	state   store.State
	command Command          // nil until it runs; guarded by mu
	clients map[*client]bool // guarded by mu
	shown   bool             // the view is there; guarded by mu
	ended   bool             // no client is accepted any more; guarded by mu
	stop    bool             // somebody asked for the end; guarded by mu
	discard bool             // nothing needs to be completed; guarded by mu
	killer  *time.Timer      // guarded by mu
	early   []unix.Signal    // came before the command ran; guarded by mu
}

// stopTimeout is how long a command has after its stop signal, as with Docker.
const stopTimeout = 10 * time.Second

// killTimeout is how long a command has after SIGKILL until whoever waits is told that it does
// not end.
const killTimeout = 5 * time.Second

// Run keeps the container from its start to its end. The caller has the container's lock, and
// release lets go of it. first is the connection of who started us, stdio the command's
// standard input, output and error; they are closed.
func (k *Keeper) Run(first *Conn, stdio [3]*os.File, mount Mounter, release func()) error {
	k.quit, k.begun = make(chan struct{}), make(chan struct{})
	k.clients = map[*client]bool{}
	if k.Runtime != nil {
		if err := k.note(store.State{Status: store.Starting, Daemon: os.Getpid(), Started: now()}); err != nil {
			return err
		}
	}
	socket, err := listen(k.Store.ContainerPath(k.Container))
	if err != nil {
		return err
	}
	// Closed before the lock is let go: who finds no lock must find no socket, and who connects an end.
	defer unix.Close(socket)
	unlock := release
	release = func() {
		_ = unix.Shutdown(socket, unix.SHUT_RDWR)
		unlock()
	}
	k.add(first, stdio)
	go k.accept(socket)
	defer k.watchSignals()()

	begin := k.begin
	if k.Runtime == nil {
		begin = k.show
	}
	runErr := mount(func() error { return begin(stdio) }, k.quit, k.discarded)
	closeAll(stdio[:])
	if k.Runtime == nil {
		return k.finishShow(runErr, release)
	}
	return k.finish(runErr, release)
}

func (k *Keeper) hasBegun() { k.begunOnce.Do(func() { close(k.begun) }) }

// end has the view taken away.
func (k *Keeper) end() { k.quitOnce.Do(func() { close(k.quit) }) }

func now() *time.Time {
	t := time.Now().UTC().Truncate(time.Millisecond)
	return &t
}

// note changes and writes down the state.
func (k *Keeper) note(st store.State) error {
	k.mu.Lock()
	k.state = st
	k.mu.Unlock()
	return k.Store.SetState(k.Container, &st)
}

// begin starts the command; the view is there.
func (k *Keeper) begin(stdio [3]*os.File) error {
	defer k.hasBegun()
	k.mu.Lock()
	stopped := k.stop
	k.mu.Unlock()
	var command Command
	err := error(&cell.Error{Code: cell.CodeFailed, Text: "stopped before it began"})
	if !stopped {
		command, err = k.Runtime.Start(k.Spec.SizedLike(stdio[1]), stdio)
	}
	closeAll(stdio[:]) // whoever reads the command's output must not wait for us
	if err != nil {
		k.refuse(err)
		k.end()
		return nil
	}
	st := store.State{Status: store.Running, Daemon: os.Getpid(), PID: command.ID(), Started: now()}
	if err := k.note(st); err != nil {
		k.Log("%v", err) // the command runs all the same
	}
	k.mu.Lock()
	k.command, k.shown = command, true
	for c := range k.clients {
		c.ready(command)
	}
	k.drainIfLeft() // who started us may have been killed meanwhile
	for _, sig := range k.early {
		_ = command.Signal(sig)
	}
	if k.stop { // asked for while it started
		_ = command.Signal(unix.SIGKILL)
	}
	k.mu.Unlock()
	go func() {
		code, err := command.Wait()
		if err != nil {
			k.Log("%v", err)
		}
		k.Runtime.Close()
		k.mu.Lock()
		k.state.Status, k.state.PID, k.state.ExitCode = store.Stopping, 0, code
		st := k.state
		k.mu.Unlock()
		if err := k.Store.SetState(k.Container, &st); err != nil {
			k.Log("%v", err)
		}
		k.end()
	}()
	return nil
}

// refuse notes why the command does not run; clients hear it at the end.
func (k *Keeper) refuse(err error) {
	code := cell.CodeFailed
	var e *cell.Error
	if errors.As(err, &e) {
		code = e.Code
	}
	k.mu.Lock()
	k.state.Status, k.state.ExitCode, k.state.Error = store.Stopping, code, err.Error()
	k.mu.Unlock()
}

// finish is what is left after the view is gone.
func (k *Keeper) finish(mountErr error, release func()) error {
	k.mu.Lock()
	k.ended = true
	k.hasBegun() // who waits for that hears that it is over
	if k.killer != nil {
		k.killer.Stop()
	}
	command, st := k.command, k.state
	k.mu.Unlock()
	if command == nil && st.Error == "" {
		st.Error, st.ExitCode = "the view was unmounted", cell.CodeFailed
		if mountErr != nil {
			st.Error = mountErr.Error()
		}
	} else if mountErr != nil {
		k.Log("%v", mountErr)
	}
	if command != nil {
		select {
		case <-command.Done():
		default: // somebody unmounted the view: a command without files is of no use
			_ = command.Signal(unix.SIGKILL)
			st.ExitCode, _ = command.Wait()
			st.Error = "the view was unmounted"
			k.Runtime.Close()
		}
		defer command.Close() // after awaitLooks: who starts another command uses its descriptor
	}
	st = store.State{Status: store.Exited, Started: st.Started, Finished: now(), ExitCode: st.ExitCode, Error: st.Error}
	err := k.Store.SetState(k.Container, &st)
	if k.Container.AutoRemove {
		err = errors.Join(err, k.Store.RemoveLocked(k.Container, true))
	}
	if err != nil {
		k.Log("%v", err)
	}
	release()
	defer k.awaitLooks()
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.clients {
		if command == nil {
			c.send(&Message{Error: st.Error, Code: st.ExitCode})
		} else {
			c.exit(st.ExitCode)
		}
	}
	return err
}

func (k *Keeper) discarded() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.discard || k.Container.AutoRemove
}

const mostSeconds = int64(math.MaxInt64 / time.Second)

// grace is a time of so many seconds, or the longest there is; below zero, for ever, it stays so.
func grace(seconds int) time.Duration {
	return time.Duration(max(-1, min(int64(seconds), mostSeconds))) * time.Second
}

// stopWith asks the command to end, and kills it if it does not. A timeout below zero
// leaves it at asking.
func (k *Keeper) stopWith(timeout time.Duration, discard bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stop = true
	k.discard = k.discard || discard
	if k.Runtime == nil {
		k.end()
	}
	if k.command == nil || k.ended {
		return
	}
	command := k.command
	if timeout != 0 {
		if err := command.Signal(StopSignal(k.Container.StopSignal)); err != nil {
			k.Log("%v", err)
		}
	}
	if k.killer != nil {
		k.killer.Stop()
	}
	if timeout >= 0 {
		k.killer = time.AfterFunc(timeout, func() { k.kill(command) })
	}
}

// kill ends the command, and says so to whoever waits if it does not end: a process may be stuck
// in the kernel, or process 1 wait for one whose parent, outside, does not reap it.
func (k *Keeper) kill(command Command) {
	if err := command.Signal(unix.SIGKILL); err != nil {
		k.Log("%v", err)
	}
	select {
	case <-command.Done():
		return
	case <-time.After(killTimeout):
	}
	text := fmt.Sprintf("process %d has not ended %v after SIGKILL; it, or a process in the container whose parent is outside, hangs", command.ID(), killTimeout)
	k.Log("%s", text)
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.clients {
		if c.stops {
			c.send(&Message{Error: text, Code: cell.CodeFailed, Stuck: true})
		}
	}
}

// watchSignals stops the container when the machine goes down, or somebody means the
// daemon. The function it returns ends that.
func (k *Keeper) watchSignals() func() {
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, unix.SIGTERM, unix.SIGINT)
	go func() {
		for s := range ch {
			k.Log("%v: stopping the container", s)
			k.stopWith(stopTimeout, false)
		}
	}()
	return func() { signal.Stop(ch) }
}
