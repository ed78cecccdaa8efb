package main

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// The same signal, from the terminal and from who hands it on, interrupts; it does not end us.
func TestInterruptedTwice(t *testing.T) {
	ctx, stop := interruptible()
	defer stop()
	for range 20 {
		if err := unix.Kill(unix.Getpid(), unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
	}
	var failed failedError
	if err := interrupted(ctx, "it", context.Cause(ctx)); !errors.As(err, &failed) || failed.code != 128+int(unix.SIGTERM) || err.Error() != "it: interrupted" {
		t.Errorf("%v", err)
	}
}
