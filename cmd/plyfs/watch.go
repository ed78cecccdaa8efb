package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/overlay/fusefs"
)

var watchCmd = command{
	name:  "watch",
	args:  "MOUNTPOINT",
	short: "print each copy-up as it happens",
	long: `One line per copy-up: when, which file, from which layer, why, how, and what it cost.
A mount that is watched is in use: end this (^C) before unmounting.`,
	run: runWatch,
}

func runWatch(c *command, args []string) error {
	f := c.flags()
	asJSON := f.Bool("json", false, "print one JSON object per line")
	if err := c.parse(f, args, 1, 1); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM)
	go func() {
		<-stop
		os.Exit(0)
	}()
	cursor := ""
	for started := false; ; started = true {
		var page struct {
			Cursor string      `json:"cursor"`
			Events []cow.Event `json:"events"`
		}
		err := ask(f.Arg(0), fusefs.CtlEvents+cursor, &page)
		if started && (errors.Is(err, errNoMount) || errors.Is(err, fusefs.ErrDead)) {
			return nil // the mount ended
		}
		if err != nil {
			return err
		}
		cursor = page.Cursor
		for _, ev := range page.Events {
			if *asJSON {
				line, err := json.Marshal(ev)
				if err != nil {
					return err
				}
				fmt.Println(string(line))
				continue
			}
			printEvent(&ev)
		}
	}
}

func printEvent(ev *cow.Event) {
	fmt.Printf("%s %s: %s by process %d, from %s, %s: %s of %s copied in %s",
		ev.Time.Local().Format("15:04:05.000"), oneLine(ev.Path), ev.Cause, ev.PID, ev.Layer, ev.Method,
		bytesText(ev.BytesCopied), bytesText(ev.FileBytes), ev.Copy.Round(time.Microsecond))
	if ev.Wait > 0 {
		fmt.Printf(", after waiting %s", ev.Wait.Round(time.Microsecond))
	}
	if ev.Err != "" {
		fmt.Printf(", failed: %s", ev.Err)
	}
	fmt.Println()
}

// bytesText writes a number of bytes as people do.
func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
