package keeper

import (
	"os"

	"github.com/plyfs/plyfs/cmd/plyfs/cell"
)

// show is begin for a keeper without a command: the view is there.
func (k *Keeper) show(stdio [3]*os.File) error {
	defer k.hasBegun()
	closeAll(stdio[:])
	k.mu.Lock()
	defer k.mu.Unlock()
	k.shown = true
	for c := range k.clients {
		c.send(&Message{Ready: true})
	}
	if k.stop || len(k.clients) == 0 { // nobody is there any more
		k.end()
	}
	return nil
}

// finishShow is finish for a keeper without a command. The state is that of the last run still.
func (k *Keeper) finishShow(mountErr error, release func()) error {
	defer k.hasBegun()
	k.mu.Lock()
	k.ended = true
	k.mu.Unlock()
	release()
	defer k.awaitLooks()
	k.mu.Lock()
	defer k.mu.Unlock()
	done := 0
	for c := range k.clients {
		switch {
		case mountErr != nil:
			c.send(&Message{Error: mountErr.Error(), Code: cell.CodeFailed})
		case c.stops:
			c.send(&Message{Exit: &done})
		case c.looks: // it hears of that
		default:
			c.send(&Message{Error: "somebody stopped it meanwhile", Code: cell.CodeFailed, Ending: true})
		}
	}
	return mountErr
}
