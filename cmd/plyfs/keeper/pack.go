package keeper

import (
	"os"

	"github.com/plyfs/plyfs/cmd/plyfs/cell"
)

// pack writes the writable layer to a file, which is closed, and answers. With pause the
// processes of the container stand still meanwhile.
func (c *client) pack(to *os.File, pause bool) {
	k := c.k
	k.mu.Lock()
	shown, command := k.shown && !k.ended && !k.stop, k.command
	k.mu.Unlock()
	var err error
	switch {
	case !shown:
		err = &cell.Error{Code: cell.CodeFailed, Text: "the container is starting or ending"}
	case command != nil && pause:
		var resume func()
		if resume, err = stopProcesses(command.ID()); err == nil {
			err = k.Pack(to)
			resume()
		}
	default:
		err = k.Pack(to)
	}
	to.Close()
	if err != nil {
		c.send(failure(err))
		return
	}
	done := 0
	c.send(&Message{Exit: &done})
}
