package keeper

import (
	"errors"
	"os"

	"github.com/plyfs/plyfs/cmd/plyfs/cell"
)

// Native is plyfs as its own runtime: package cell.
type Native struct{ first *cell.Process }

// nativeCommand is a cell.Process as a Command.
type nativeCommand struct{ *cell.Process }

func (c nativeCommand) Terminal() *os.File { return c.Master }
func (c nativeCommand) ID() int            { return c.PID }

// Start implements Runtime.
func (n *Native) Start(s *cell.Spec, stdio [3]*os.File) (Command, error) {
	p, err := cell.Start(s, stdio)
	if err != nil {
		return nil, err
	}
	n.first = p
	return nativeCommand{p}, nil
}

// Exec implements Runtime.
func (n *Native) Exec(s *cell.Spec, stdio [3]*os.File) (Command, error) {
	p, err := n.first.Exec(s, stdio)
	if err != nil {
		return nil, err
	}
	return nativeCommand{p}, nil
}

// Close implements Runtime; the kernel has taken everything away with process 1.
func (n *Native) Close() {}

// failure turns an error into the message for it.
func failure(err error) *Message {
	code := cell.CodeFailed
	var e *cell.Error
	if errors.As(err, &e) {
		code = e.Code
	}
	return &Message{Error: err.Error(), Code: code}
}
