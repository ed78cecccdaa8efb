package keeper

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/cell"
)

// Message is one packet of the control socket.
type Message struct {
	// Requests: one of these words in Op.
	Op      string     `json:"op,omitempty"`
	Spec    *cell.Spec `json:"spec,omitempty"`    // exec; with the three standard descriptors
	Signal  int        `json:"signal,omitempty"`  // signal
	Timeout int        `json:"timeout,omitempty"` // stop: seconds until SIGKILL; below zero for ever
	Discard bool       `json:"discard,omitempty"` // stop: the container will be removed, complete nothing
	Pause   bool       `json:"pause,omitempty"`   // pack: nothing in the container runs meanwhile
	Args    []string   `json:"args,omitempty"`    // look; with the three standard descriptors

	// Answers.
	Say   string `json:"say,omitempty"`   // a line for the user
	Ready bool   `json:"ready,omitempty"` // the command runs; with the master of its terminal
	Looks bool   `json:"looks,omitempty"` // what looks was started
	Error string `json:"error,omitempty"` // why it does not; Code is the exit code for it
	Code  int    `json:"code,omitempty"`
	Exit  *int   `json:"exit,omitempty"` // the command has ended
	// Running, with Error: the container has a daemon already.
	Running bool `json:"running,omitempty"`
	// Stuck, with Error: the command does not end, whatever it is sent.
	Stuck bool `json:"stuck,omitempty"`
	// Ending, with Error: the keeper is about to end; another one may do it.
	Ending bool `json:"ending,omitempty"`
}

// Words of Message.Op.
const (
	opAwait  = "await"
	opExec   = "exec"
	opSignal = "signal"
	opStop   = "stop"
	opPack   = "pack"
	opLook   = "look"
	opDone   = "done"
)

// maxMessage bounds a packet; the kernel's own limit for them is not much above.
const maxMessage = 192 << 10

// Conn is one end of a connection. Its methods may be called from any goroutine.
type Conn struct {
	f  *os.File
	fd int // of f

	mu     sync.Mutex // guards the rest; a leaf
	users  int        // in a system call on fd
	closed bool       // f is closed by the last user
}

// NewConn takes over a socket.
func NewConn(f *os.File) *Conn { return &Conn{f: f, fd: int(f.Fd())} }

// enter keeps the descriptor open until leave.
func (c *Conn) enter() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return os.ErrClosed
	}
	c.users++
	return nil
}

func (c *Conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users--; c.users == 0 && c.closed {
		c.f.Close()
	}
}

// Pair returns two ends of a new connection.
func Pair() (*Conn, *os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return NewConn(os.NewFile(uintptr(pair[0]), "control")), os.NewFile(uintptr(pair[1]), "control"), nil
}

// Close ends the connection, for whoever waits in Receive too.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil
	case c.users > 0:
		c.closed = true
		return unix.Shutdown(c.fd, unix.SHUT_RDWR)
	}
	c.closed = true
	return c.f.Close()
}

// Shutdown ends the connection for whoever waits in Receive, too.
func (c *Conn) Shutdown() {
	if c.enter() == nil {
		_ = unix.Shutdown(c.fd, unix.SHUT_RDWR)
		c.leave()
	}
}

// Send sends a message with descriptors, which stay open here; EPIPE if the other end is gone.
func (c *Conn) Send(m *Message, files ...*os.File) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("arguments and environment of %d bytes are too long", len(b))
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	if err := c.enter(); err != nil {
		return err
	}
	defer c.leave()
	for {
		err := unix.Sendmsg(c.fd, b, oob, nil, unix.MSG_NOSIGNAL)
		// ECONNRESET: the other end is gone and has not read all (or never took the connection). It is
		// said once, and then EPIPE, which is what senders know.
		if err != unix.EINTR && err != unix.ECONNRESET {
			return err
		}
	}
}

// Receive returns the next message and its descriptors; io.EOF after the last.
func (c *Conn) Receive() (*Message, []*os.File, error) {
	if err := c.enter(); err != nil {
		return nil, nil, err
	}
	defer c.leave()
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(3*4))
	var n, oobn int
	var err error
	for {
		n, oobn, _, _, err = unix.Recvmsg(c.fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
		// ECONNRESET: the other end is gone and has not read all; what it sent comes next.
		if err != unix.EINTR && err != unix.ECONNRESET {
			break
		}
	}
	if err == nil && n == 0 {
		return nil, nil, io.EOF
	}
	if err != nil {
		return nil, nil, os.NewSyscallError("recvmsg", err)
	}
	files := rights(oob[:oobn])
	var m Message
	if err := json.Unmarshal(buf[:n], &m); err != nil {
		closeAll(files)
		return nil, nil, fmt.Errorf("message: %w", err)
	}
	return &m, files, nil
}

func rights(oob []byte) []*os.File {
	var files []*os.File
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// socketName opens a way to a socket in the container's directory that fits into a socket
// address, however long the path is.
func socketName(dir, name string) (path string, done func(), err error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, name), func() { unix.Close(fd) }, nil
}

const controlName = "control"

// Listen makes the control socket in dir, in place of one that is left there.
func listen(dir string) (int, error) {
	path, done, err := socketName(dir, controlName)
	if err != nil {
		return -1, err
	}
	defer done()
	_ = unix.Unlink(path)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err == nil {
		err = unix.Listen(fd, 64)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("control socket in %s: %w", dir, err)
	}
	return fd, nil
}

// dial connects to the control socket in dir.
func dial(dir string) (*Conn, error) {
	path, done, err := socketName(dir, controlName)
	if err != nil {
		return nil, err
	}
	defer done()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return NewConn(os.NewFile(uintptr(fd), "control")), nil
}
