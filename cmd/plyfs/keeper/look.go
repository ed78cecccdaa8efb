package keeper

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/cmd/plyfs/cell"
)

// The view of a container is mounted where its keeper is: for an ordinary user in a namespace that nobody else
// can enter. So who wants to look at it has the keeper start a process that does.

// look starts such a process for a client, with the client's standard input, output and error. It ends with the
// client.
func (c *client) look(args []string, stdio [3]*os.File) {
	defer closeAll(stdio[:])
	k := c.k
	<-k.begun
	k.mu.Lock()
	defer k.mu.Unlock()
	c.looks = true
	if k.ending() {
		c.send(endingSoon)
		return
	}
	cmd := k.Look(args)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdio[0], stdio[1], stdio[2]
	if err := cmd.Start(); err != nil {
		c.send(failure(err))
		return
	}
	c.looking = cmd.Process
	c.send(&Message{Looks: true})
	k.looks.Add(1)
	go c.looked(cmd)
}

// ending tells whether the view is being taken away, or never was there. It is called once begun is closed, with mu held.
func (k *Keeper) ending() bool {
	select {
	case <-k.quit:
		return true
	default:
		return !k.shown || k.ended
	}
}

var endingSoon = &Message{Error: "the container is just ending", Code: cell.CodeFailed, Ending: true}

// looked waits for the end of that process.
func (c *client) looked(cmd *exec.Cmd) {
	defer c.k.looks.Done()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.k.Log("%v", err)
	}
	code := cmd.ProcessState.ExitCode()
	if code < 0 {
		code = 128 + int(cmd.ProcessState.Sys().(syscall.WaitStatus).Signal())
	}
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	c.looking = nil
	c.send(&Message{Exit: &code})
}

// awaitLooks waits for those who look, to tell their clients how they ended: the view is gone, and so they are soon.
func (k *Keeper) awaitLooks() {
	done := make(chan struct{})
	go func() {
		k.looks.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(killTimeout):
	}
}

// done is the end of a client that does not need the view any more. The last one of a keeper without a
// command learns from the end of the connection that the view is gone.
func (c *client) done() {
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	delete(c.k.clients, c)
	if c.k.Runtime == nil && len(c.k.clients) == 0 {
		c.k.end()
	} else {
		c.conn.Shutdown()
	}
}
