package keeper

import "os"

// pack writes the writable layer to a file, which is closed, and answers. With pause the
// processes of the container stand still meanwhile.
func (c *client) pack(to *os.File, pause bool) {
	k := c.k
	<-k.begun
	k.mu.Lock()
	ending, command := k.ending() || k.stop, k.command
	k.mu.Unlock()
	var err error
	switch {
	case ending:
		to.Close()
		c.send(endingSoon)
		return
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
