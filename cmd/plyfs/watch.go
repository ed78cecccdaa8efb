package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/text"
	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/overlay/fusefs"
)

var watchCmd = command{
	name:  "watch",
	args:  "MOUNTPOINT | CONTAINER",
	short: "print each copy-up as it happens",
	long: `One line per copy-up: when, which file, why and by whom, from which layer, how, and what
it cost. End it with ^C, or by unmounting.
` + containerArgument + ` It must run or be mounted.`,
	run: runWatch,
}

// watchEvery is how long an event may wait to be seen. A request that waits for events
// would keep the mount busy, and umount from working.
const watchEvery = 100 * time.Millisecond

func runWatch(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	asJSON := f.Bool("json", false, "print one JSON object per line")
	if err := c.parse(f, args, 1, 1); err != nil {
		return err
	}
	return c.on(f, *root, "", func(p place) error { return watch(p, *asJSON) })
}

// watch prints the copy-ups of a mount until its end. It is an error if the daemon ends and leaves the mount.
func watch(p place, asJSON bool) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM)
	go func() { // not between two questions: a daemon that is stuck never answers
		<-stop
		os.Exit(0)
	}()
	cursor, seen := "", uint64(0)
	dead := false
	for started := false; ; started = true {
		var page struct {
			Cursor string      `json:"cursor"`
			Events []cow.Event `json:"events"`
		}
		err := ask(p, fusefs.CtlEvents+cursor, &page)
		switch {
		case started && errors.Is(err, errNoMount):
			return nil // the mount ended
		case started && errors.Is(err, fusefs.ErrDead) && !dead:
			dead = true // it may end just now, or the daemon was killed
			time.Sleep(watchEvery)
			continue
		case err != nil:
			return err
		}
		dead = false
		cursor = page.Cursor
		for _, ev := range page.Events {
			if seen > 0 && ev.Seq > seen+1 {
				fmt.Fprintf(os.Stderr, "plyfs: %d copy-ups were too many at a time to be shown\n", ev.Seq-seen-1)
			}
			seen = ev.Seq
			if err := showEvent(&ev, asJSON); err != nil {
				return nil // nobody reads any more
			}
		}
		if len(page.Events) == 0 { // otherwise there may be more
			time.Sleep(watchEvery)
		}
	}
}

func showEvent(ev *cow.Event, asJSON bool) error {
	if !asJSON {
		return printEvent(ev)
	}
	line, err := json.Marshal(ev)
	if err != nil {
		return err
	}
	_, err = fmt.Println(string(line))
	return err
}

func printEvent(ev *cow.Event) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s", ev.Time.Local().Format("15:04:05.000"), oneLine(ev.Path), ev.Cause)
	if ev.BytesAsked > 0 {
		fmt.Fprintf(&b, " of %s", bytesText(ev.BytesAsked))
	}
	if ev.PID != 0 {
		fmt.Fprintf(&b, " by process %d", ev.PID)
		if ev.Process != "" {
			fmt.Fprintf(&b, " (%s)", oneLine(ev.Process))
		}
	}
	fmt.Fprintf(&b, ", from %s, %s: %s of %s copied, %s in the upper, in %s",
		oneLine(ev.Layer), ev.Method, bytesText(ev.BytesCopied), bytesText(ev.FileBytes), bytesText(ev.UpperBytes),
		ev.Copy.Round(time.Microsecond))
	if ev.Wait > 0 {
		fmt.Fprintf(&b, ", after waiting %s", ev.Wait.Round(time.Microsecond))
	}
	if ev.Err != "" {
		fmt.Fprintf(&b, ", failed: %s", ev.Err)
	}
	_, err := fmt.Println(b.String())
	return err
}

// bytesText writes a number of bytes as people do.
func bytesText(n int64) string { return text.Bytes(n) }
