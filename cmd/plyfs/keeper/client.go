package keeper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/cell"
)

// client is a connection, seen from the keeper. The keeper's mu guards it.
type client struct {
	k        *Keeper
	conn     *Conn
	attached bool // wants to know when the command runs
	waits    bool // wants to know when it has ended
	stops    bool // and waits because it has asked for that

	looks   bool        // its signals are for what looks
	looking *os.Process // while it runs
}

// add takes the connection of the process that started us: it is attached already.
func (k *Keeper) add(conn *Conn, _ [3]*os.File) {
	c := &client{k: k, conn: conn, attached: true, waits: true}
	k.mu.Lock()
	k.clients[c] = true
	k.mu.Unlock()
	go c.serve()
}

// accept takes connections until the socket is closed.
func (k *Keeper) accept(socket int) {
	for {
		fd, _, err := unix.Accept4(socket, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if err != nil {
			return
		}
		c := &client{k: k, conn: NewConn(os.NewFile(uintptr(fd), "control"))}
		k.mu.Lock()
		if k.ended {
			k.mu.Unlock()
			c.send(&Message{Error: "the container has just ended", Code: cell.CodeFailed, Ending: true})
			c.conn.Close()
			continue
		}
		k.clients[c] = true
		k.mu.Unlock()
		go c.serve()
	}
}

// serve reads the requests of a connection until its end.
func (c *client) serve() {
	defer c.leave()
	for {
		m, files, err := c.conn.Receive()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c.k.Log("%v", err)
			}
			return
		}
		switch m.Op {
		case opAwait:
			c.k.mu.Lock()
			delete(c.k.clients, c) // it only looks, and keeps nothing alive
			c.k.mu.Unlock()
			if c.k.running() {
				c.send(&Message{Ready: true})
			} else {
				c.send(notRunning)
			}
		case opSignal:
			c.signal(unix.Signal(m.Signal))
		case opStop:
			c.k.mu.Lock()
			c.waits, c.stops = true, true
			c.k.mu.Unlock()
			c.k.stopWith(grace(m.Timeout), m.Discard)
		case opPack:
			if len(files) == 1 {
				c.pack(files[0], m.Pause)
			}
		case opLook:
			if len(files) == 3 {
				c.look(m.Args, [3]*os.File{files[0], files[1], files[2]})
				continue
			}
		case opDone:
			c.done()
		case opExec:
			if len(files) == 3 && m.Spec != nil {
				c.exec(m, [3]*os.File{files[0], files[1], files[2]})
				return
			}
		default:
			c.send(&Message{Error: fmt.Sprintf("the container's daemon does not know the request %q: it is of another version", m.Op), Code: cell.CodeFailed})
		}
		closeAll(files)
	}
}

// signal hands a signal on to what it is meant for.
func (c *client) signal(sig unix.Signal) {
	k := c.k
	k.mu.Lock()
	defer k.mu.Unlock()
	var err error
	switch {
	case c.looking != nil:
		err = c.looking.Signal(sig)
	case c.looks:
	case k.command == nil:
		k.early = append(k.early, sig)
	default:
		err = k.command.Signal(sig)
	}
	if err != nil {
		k.Log("%v", err)
	}
}

// leave forgets the connection. If it had the terminal and the command goes on, somebody
// has to read what is printed there.
func (c *client) leave() {
	c.k.mu.Lock()
	_, was := c.k.clients[c]
	delete(c.k.clients, c)
	if c.looking != nil {
		_ = c.looking.Kill()
	}
	if was && c.attached {
		c.k.drainIfLeft()
	}
	if c.k.Runtime == nil && len(c.k.clients) == 0 {
		c.k.end()
	}
	c.k.mu.Unlock()
	c.conn.Close()
}

var notRunning = &Message{Error: "the container's command is not running", Code: cell.CodeFailed}

// running waits until the container's command was started, or nobody will, and reports whether it runs.
func (k *Keeper) running() bool {
	<-k.begun
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.command == nil || k.ended {
		return false
	}
	select {
	case <-k.command.Done(): // what it left is being completed, which may take long
		return false
	default:
		return true
	}
}

// exec runs another command for a connection of its own.
func (c *client) exec(m *Message, stdio [3]*os.File) {
	k := c.k
	k.mu.Lock()
	delete(k.clients, c) // its end is not that of the container's command
	if !k.ended {        // it wants to hear how this one ended, too
		k.looks.Add(1)
		defer k.looks.Done()
	}
	k.mu.Unlock()
	if !k.running() {
		closeAll(stdio[:])
		c.send(notRunning)
		return
	}
	command, err := k.Runtime.Exec(m.Spec.SizedLike(stdio[1]), stdio)
	closeAll(stdio[:])
	if err != nil {
		c.send(failure(err))
		return
	}
	defer command.Close()
	c.ready(command)
	var ended atomic.Bool
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			m, files, err := c.conn.Receive()
			if err != nil {
				if !ended.Load() { // as with Docker the command goes on, and what it prints is lost
					k.drain(command, "/dev/null")
				}
				return
			}
			closeAll(files)
			if m.Op == opSignal {
				_ = command.Signal(unix.Signal(m.Signal))
			}
		}
	}()
	code, err := command.Wait()
	if err != nil {
		k.Log("%v", err)
	}
	ended.Store(true)
	c.send(&Message{Exit: &code})
	c.conn.Shutdown() // ends the goroutine above
	<-gone            // the terminal is closed next
}

func (c *client) send(m *Message, files ...*os.File) {
	if err := c.conn.Send(m, files...); err != nil && !errors.Is(err, unix.EPIPE) {
		c.k.Log("answer: %v", err)
	}
}

// ready says that the command runs.
func (c *client) ready(command Command) {
	if t := command.Terminal(); t != nil {
		c.send(&Message{Ready: true}, t)
		return
	}
	c.send(&Message{Ready: true})
}

// exit says that it has ended.
func (c *client) exit(code int) {
	if c.waits || c.attached {
		c.send(&Message{Exit: &code})
	}
}
