package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// interruption is why a context of [interruptible] ended.
type interruption struct{ unix.Signal }

func (i interruption) Error() string { return "interrupted" }

// interruptible returns a context that ends when the user has enough.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	go func() {
		select {
		case s := <-c:
			signal.Stop(c) // who is in a hurry sends a second one, which ends us
			sig, _ := s.(unix.Signal)
			cancel(interruption{sig})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(c)
		cancel(nil)
	}
}

// interrupted gives what failed because the user had enough that reason, instead of the place where it was, and the exit
// code of a program that the signal ended, as Docker does. what is the command.
func interrupted(ctx context.Context, what string, err error) error {
	var i interruption
	if err == nil || !errors.As(context.Cause(ctx), &i) {
		return err
	}
	return failedError{fmt.Errorf("%s: %w", what, i), 128 + int(i.Signal)}
}
