package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// interruption is why a context of [interruptible] ended.
type interruption struct{ unix.Signal }

func (i interruption) Error() string { return "interrupted" }

// hurry is how long after a signal another one is taken for the same: a terminal sends it to all processes of a command, and
// one that waits for another hands it on.
const hurry = time.Second

// interruptible returns a context that ends when the user has enough. Who is in a hurry sends another signal, later than
// hurry, which ends us.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(c, os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	go func() {
		var first time.Time
		for {
			select {
			case s := <-c:
				sig, _ := s.(unix.Signal)
				switch {
				case first.IsZero():
					first = time.Now()
					cancel(interruption{sig})
				case time.Since(first) > hurry:
					os.Exit(128 + int(sig))
				}
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(c)
		close(done)
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
