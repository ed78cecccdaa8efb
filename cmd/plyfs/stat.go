package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/plyfs/plyfs/overlay/fusefs"
)

var statCmd = command{
	name:  "stat",
	args:  "MOUNTPOINT | CONTAINER",
	short: "show what the kernel asked of a mount, and what was copied up",
	long: `The numbers are of requests since the mount, by kind. What the kernel answered from its
own caches is no request. Asking for the numbers does not change them.
` + containerArgument + ` It must run or be mounted.`,
	run: runStat,
}

func runStat(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	asJSON := f.Bool("json", false, "print JSON")
	if err := c.parse(f, args, 1, 1); err != nil {
		return err
	}
	return c.on(f, *root, "", func(p place) error { return printStat(p, *asJSON) })
}

func printStat(p place, asJSON bool) error {
	if asJSON {
		var all any
		if err := ask(p, fusefs.CtlStat, &all); err != nil {
			return err
		}
		return printJSON(all)
	}
	var st mountStat
	if err := ask(p, fusefs.CtlStat, &st); err != nil {
		return err
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	mode := st.Mode
	if st.Writeback {
		mode += ", small writes gathered"
	}
	fmt.Fprintf(t, "mode\t%s\n", mode)
	if d := st.Union.Daemon; d.PID != 0 {
		fmt.Fprintf(t, "daemon\tprocess %d, for %s, version %s\n", d.PID, time.Since(d.Since).Round(time.Second), d.Version)
		for i, dir := range d.Lowers {
			fmt.Fprintf(t, "lower %d\t%s\n", i+1, oneLine(dir))
		}
		for i, dir := range d.DataLowers {
			fmt.Fprintf(t, "data %d\t%s\n", i+1, oneLine(dir))
		}
		if d.Upper != "" {
			fmt.Fprintf(t, "upper\t%s\n", oneLine(d.Upper))
		}
	}
	fmt.Fprintf(t, "read\t%d bytes\n", st.BytesRead)
	fmt.Fprintf(t, "written\t%d bytes\n", st.BytesWritten)
	fmt.Fprintf(t, "requests\t%d\n", st.Total)
	kinds := slices.Collect(maps.Keys(st.Requests))
	slices.SortFunc(kinds, func(a, b string) int {
		return cmp.Or(cmp.Compare(st.Requests[b], st.Requests[a]), cmp.Compare(a, b))
	})
	for _, k := range kinds {
		fmt.Fprintf(t, "  %s\t%d\n", k, st.Requests[k])
	}
	if st.Panics > 0 {
		fmt.Fprintf(t, "faults\t%d, see the log\n", st.Panics)
	}
	printCore(t, st.Union.Core)
	return t.Flush()
}
