package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/plyfs/plyfs/layer/store"
)

var psCmd = command{
	name:  "ps",
	short: "list the running containers; -a: all",
	run:   runPs,
}

// psEntry is a container with its state.
type psEntry struct {
	*store.Container
	State *store.State `json:"state"`
	// Upper is the writable layer, Merged where the view is mounted while it runs.
	Upper  string `json:"upper"`
	Merged string `json:"merged"`
}

func runPs(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	all := f.BoolP("all", "a", false, "also those that do not run")
	quiet := f.BoolP("quiet", "q", false, "only the names")
	asJSON := f.Bool("json", false, "print JSON")
	if err := c.parse(f, args, 0, 0); err != nil {
		return err
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	entries, err := listContainers(s, *all)
	if err != nil {
		return err
	}
	switch {
	case *asJSON:
		return printJSON(entries)
	case *quiet:
		for _, e := range entries {
			fmt.Fprintln(stdout, e.Name)
		}
		return nil
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NAME\tID\tIMAGE\tCOMMAND\tCREATED\tSTATUS")
	for _, e := range entries {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", e.Name, store.ShortID(e.ID), imageText(s, e.Container), shortCommand(e.Args), agoText(e.Created), statusText(e.State))
	}
	return t.Flush()
}

// imageText is what the user called a container's image, unless that means another one by now, or none: then its id.
func imageText(s *store.Store, c *store.Container) string {
	if img, err := s.Image(c.ImageName); err != nil || img.ID != c.Image {
		return store.ShortID(c.Image)
	}
	return c.ImageName
}

// listContainers returns the containers that run, or all. One that disappears meanwhile is left
// out.
func listContainers(s *store.Store, all bool) ([]psEntry, error) {
	list, err := s.Containers()
	if err != nil {
		return nil, err
	}
	entries := []psEntry{}
	for _, c := range list {
		e, err := entryOf(s, c)
		if err != nil {
			return nil, err
		}
		if e.State != nil && (all || e.State.Status.Live()) {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// entryOf returns a container with its state, which one has not that was removed meanwhile.
func entryOf(s *store.Store, c *store.Container) (psEntry, error) {
	st, err := s.State(c)
	if errors.Is(err, store.ErrNotFound) {
		st, err = nil, nil
	}
	return psEntry{c, st, s.ContainerPath(c, "upper"), s.ContainerPath(c, "merged")}, err
}

// printEntry prints what was made of a container: its name, or all of it.
func printEntry(s *store.Store, c *store.Container, asJSON bool) error {
	if !asJSON {
		fmt.Fprintln(stdout, c.Name)
		return nil
	}
	e, err := entryOf(s, c)
	if err != nil {
		return err
	}
	return printJSON(e)
}

// report is what a command says of the containers that it was given: each one's name as soon as it is done, or with --json
// all of them at the end, in one array.
type report struct {
	json    bool
	store   *store.Store
	entries []psEntry
}

func (r *report) add(c *store.Container) error {
	if !r.json {
		fmt.Fprintln(stdout, c.Name)
		return nil
	}
	e, err := entryOf(r.store, c)
	r.entries = append(r.entries, e)
	return err
}

// end is to be called with the error of the command.
func (r *report) end(err error) error {
	if r.json {
		err = errors.Join(printJSON(r.entries), err)
	}
	return err
}

func shortCommand(args []string) string {
	text := oneLine(strings.Join(args, " "))
	if r := []rune(text); len(r) > 24 {
		text = string(r[:23]) + "…"
	}
	return text
}

func statusText(st *store.State) string {
	switch st.Status {
	case store.Running:
		if st.Started != nil {
			return "running, " + strings.TrimSuffix(agoText(*st.Started), " ago")
		}
	case store.Exited:
		text := fmt.Sprintf("exited (%d)", st.ExitCode)
		if st.Finished != nil {
			text += " " + agoText(*st.Finished)
		}
		return text
	case store.Killed:
		return "killed (its daemon died)"
	}
	return string(st.Status)
}

// agoText says how long ago t was, roughly.
func agoText(t time.Time) string {
	d := time.Since(t)
	unit := func(n int64, name string) string {
		if n != 1 {
			name += "s"
		}
		return fmt.Sprintf("%d %s ago", n, name)
	}
	switch {
	case d < 2*time.Minute:
		return unit(max(0, int64(d/time.Second)), "second")
	case d < 2*time.Hour:
		return unit(int64(d/time.Minute), "minute")
	case d < 48*time.Hour:
		return unit(int64(d/time.Hour), "hour")
	}
	return unit(int64(d/(24*time.Hour)), "day")
}
