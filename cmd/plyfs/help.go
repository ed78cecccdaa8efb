package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/plyfs/plyfs/cmd/plyfs/mountopt"
	"github.com/plyfs/plyfs/cmd/plyfs/text"
)

var helpCmd = command{
	name:  "help",
	args:  "[COMMAND... | options]",
	short: "say more about a command, or list the mount options",
	run:   runHelp,
}

func runHelp(c *command, args []string) error {
	f := c.flags()
	if err := c.parse(f, args, 0, 2); err != nil {
		return err
	}
	switch topic := strings.Join(f.Args(), " "); topic {
	case "":
		printOverview(stdout)
		return nil
	case "options":
		printOptions(stdout)
		return nil
	default:
		about := findCommand(topic)
		if about == nil {
			return usagef("help: no command %q", topic)
		}
		_ = about.run(about, []string{"--help"})
		return nil
	}
}

func printOptions(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "Mount options (-o), between commas. A backslash takes the meaning from a comma,\na colon or a backslash after it.")
	fmt.Fprintln(t)
	for _, d := range mountopt.Docs() {
		name := d.Name
		if d.Form != "" {
			name += "=" + d.Form
		}
		fmt.Fprintf(t, "  %s\t%s\n", name, d.Text)
	}
	fmt.Fprint(t, "\nAccepted, and so anyway or without meaning here:\n\n")
	var silent []string
	for _, d := range mountopt.Silent() {
		name := d.Name
		if d.Form != "" {
			name += "=" + d.Form
		}
		silent = append(silent, name)
	}
	for _, line := range text.Wrap(strings.Join(append(silent, "x-*"), " "), 76) {
		fmt.Fprintf(t, "  %s\n", line)
	}
	fmt.Fprint(t, "\nKnown, and refused:\n\n")
	for _, d := range mountopt.Refused() {
		fmt.Fprintf(t, "  %s\t%s\n", d.Name, d.Text)
	}
	fmt.Fprint(t, "\nAny other option is an error.\n")
	t.Flush()
}
