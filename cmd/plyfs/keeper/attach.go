package keeper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/plyfs/plyfs/cmd/plyfs/cell"
	"github.com/plyfs/plyfs/layer/store"
	"github.com/plyfs/plyfs/layer/store/userns"
)

// Failure is why there is no exit code of a command; Code is that to end with instead.
type Failure struct {
	Code    int
	Text    string
	Running bool // it runs already
	Stuck   bool // it does not end
	Ending  bool // the keeper is about to end
}

func (f *Failure) Error() string { return f.Text }

// Is makes a Failure match store.ErrRunning.
func (f *Failure) Is(target error) bool { return f.Running && target == store.ErrRunning }

func failureOf(m *Message) *Failure { return &Failure{m.Code, m.Error, m.Running, m.Stuck, m.Ending} }

// ErrGone is why there is no answer of a keeper that is there no more.
var ErrGone = &Failure{Code: cell.CodeFailed, Ending: true, Text: "the container's daemon was killed, and the command with it"}

// Session is the side of the keeper's client.
type Session struct {
	conn     *Conn
	terminal *os.File // the command's
	started  atomic.Bool
	left     atomic.Bool // the user would not wait for the start
	// Say takes lines for the user.
	Say func(text string)
}

// NewSession takes over a connection.
func NewSession(conn *Conn) *Session {
	return &Session{conn: conn, Say: func(text string) { fmt.Fprintln(os.Stderr, "plyfs: "+text) }}
}

// Dial connects to the keeper of a container; dir is the container's directory.
func Dial(dir string) (*Session, error) {
	conn, err := dial(dir)
	if err != nil {
		return nil, err
	}
	return NewSession(conn), nil
}

// Close ends the connection; the command goes on.
func (s *Session) Close() {
	s.conn.Close()
	if s.terminal != nil {
		s.terminal.Close()
	}
}

// Running waits until the container's command runs; an error says that it does not.
func (s *Session) Running() error {
	if err := s.ask(&Message{Op: opAwait}); err != nil {
		return err
	}
	return s.Started()
}

// Exec asks for another command, with these descriptors.
func (s *Session) Exec(spec *cell.Spec, stdio [3]*os.File) error {
	return s.ask(&Message{Op: opExec, Spec: spec}, stdio[:]...)
}

// ask sends a request. That the keeper is gone is no error: it may have said why, and who waits for the answer gets that.
func (s *Session) ask(m *Message, files ...*os.File) error {
	if err := s.conn.Send(m, files...); !errors.Is(err, unix.EPIPE) {
		return err
	}
	return nil
}

// Stop asks for the end of the container, with SIGKILL after so many seconds. With discard
// its changes are not wanted any more.
func (s *Session) Stop(seconds int, discard bool) error {
	return s.conn.Send(&Message{Op: opStop, Timeout: seconds, Discard: discard})
}

// Pack asks for the writable layer, to be written to a file as an archive; [Session.Wait] returns when it is done.
// With pause nothing in the container runs meanwhile.
func (s *Session) Pack(to *os.File, pause bool) error {
	return s.ask(&Message{Op: opPack, Pause: pause}, to)
}

// Look starts a process that looks at the view, with these descriptors; [Session.Wait] returns its exit code. An
// error of type *Failure says why it does not run.
func (s *Session) Look(args []string, stdio [3]*os.File) error {
	if err := s.ask(&Message{Op: opLook, Args: args}, stdio[:]...); err != nil {
		return err
	}
	for {
		m, files, err := s.conn.Receive()
		if err != nil {
			return ErrGone
		}
		closeAll(files)
		switch {
		case m.Looks:
			return nil
		case m.Error != "":
			return failureOf(m)
		case m.Say != "":
			s.Say(m.Say)
		}
	}
}

// Done says that the view is not needed any more. If nobody else needs it, it waits until it is gone.
func (s *Session) Done() {
	if s.conn.Send(&Message{Op: opDone}) == nil {
		s.WaitGone()
	}
}

// errLeft is why a user who has enough gets no answer.
var errLeft = &Failure{Code: cell.CodeFailed, Text: "the container has not started yet, and is left to itself: plyfs ps -a shows how it is"}

// Started waits until the command runs. An error of type *Failure says why it does not.
func (s *Session) Started() error {
	for {
		m, files, err := s.conn.Receive()
		switch {
		case err != nil && s.left.Load():
			return errLeft
		case err != nil:
			return ErrGone
		}
		switch {
		case m.Ready:
			s.started.Store(true)
			if len(files) > 0 {
				s.terminal = files[0]
				closeAll(files[1:])
			}
			return nil
		case m.Error != "":
			return failureOf(m)
		case m.Exit != nil: // of a container that ended meanwhile
			return &Failure{Code: cell.CodeFailed, Ending: true, Text: "the container has just ended"}
		case m.Say != "":
			s.Say(m.Say)
		}
		closeAll(files)
	}
}

// Wait waits until the command has ended and returns its exit code.
func (s *Session) Wait() (int, error) {
	for {
		m, files, err := s.conn.Receive()
		if err != nil {
			return 0, ErrGone
		}
		closeAll(files)
		switch {
		case m.Exit != nil:
			return *m.Exit, nil
		case m.Error != "":
			return 0, failureOf(m)
		case m.Say != "":
			s.Say(m.Say)
		}
	}
}

// WaitGone waits until the keeper is gone, and with it the container's lock.
func (s *Session) WaitGone() {
	for {
		_, files, err := s.conn.Receive()
		if err != nil {
			return
		}
		closeAll(files)
	}
}

// Relay is Wait for the process in front of which the user sits: if the command has a terminal, that is
// connected with ours. input: ours, which is one then, is read, too.
func (s *Session) Relay(input bool) (int, error) {
	if s.terminal == nil {
		return s.Wait()
	}
	defer s.raw(input)()
	printed := make(chan error, 1)
	go func() {
		err := copyTerminal(os.Stdout, int(s.terminal.Fd()))
		printed <- err
		if err != nil {
			s.conn.Shutdown() // only when we have left does the keeper read the terminal, without which the command would hang
		}
	}()
	if input {
		go func() {
			_, _ = io.Copy(rawWriter{s.terminal}, os.Stdin)
		}()
	}
	code, err := s.Wait()
	if err == nil {
		<-printed
		return code, nil
	}
	select {
	case lost := <-printed:
		if lost != nil {
			err = &Failure{Code: cell.CodeFailed, Text: fmt.Sprintf("%v: the command goes on without it", lost)}
		}
	default:
	}
	return code, err
}

// rawWriter keeps io.Copy from using splice and the like on a terminal.
type rawWriter struct{ w io.Writer }

func (r rawWriter) Write(b []byte) (int, error) { return r.w.Write(b) }

// copyTerminal copies until the other end of the terminal is closed, which reads as EIO. An error is one of writing.
func copyTerminal(to io.Writer, from int) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Read(from, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return nil
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
	}
}

// raw makes our terminal hand everything through, and gives the command's its size. The
// function it returns undoes that.
func (s *Session) raw(input bool) func() {
	resize := func() {
		if w, h, err := term.GetSize(1); err == nil {
			_ = cell.Resize(s.terminal, uint16(h), uint16(w))
		}
	}
	ch := make(chan os.Signal, 2)
	// Who was stopped comes back to a terminal as the shell left it, and heard nothing of its size.
	signal.Notify(ch, unix.SIGWINCH, unix.SIGCONT) // before it is asked for the first time: no change may be missed between the two
	resize()
	restore := func() {}
	if input {
		if old, err := term.MakeRaw(0); err == nil {
			restore = func() { _ = term.Restore(0, old) }
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sig := range ch {
			if sig == unix.SIGCONT && input {
				_, _ = term.MakeRaw(0)
			}
			resize()
		}
	}()
	return func() {
		signal.Stop(ch)
		close(ch)
		<-done // the terminal is closed next
		restore()
	}
}

// ForwardSignals hands what reaches this process to the command. It is to be called before
// Started: the command may run, and say so, before we hear of it. As long as it does not, the second signal that
// asks for an end ends our waiting. The function it returns ends that.
func (s *Session) ForwardSignals() func() {
	ch := make(chan os.Signal, 16)
	signal.Notify(ch, userns.Meant()...)
	go func() {
		asked := 0
		for sig := range ch {
			if sig == unix.SIGINT || sig == unix.SIGTERM {
				asked++
			}
			if asked > 1 && !s.started.Load() {
				s.left.Store(true)
				s.conn.Shutdown()
				return
			}
			err := s.conn.Send(&Message{Op: opSignal, Signal: int(sig.(unix.Signal))})
			if errors.Is(err, unix.EPIPE) {
				return
			}
		}
	}()
	return func() { signal.Stop(ch) }
}
