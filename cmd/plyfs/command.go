package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/cmd/plyfs/mountopt"
)

// command is one subcommand. run gets the arguments after its name.
type command struct {
	name  string
	args  string // what follows the flags in the usage line
	short string // one line for the overview
	long  string // what else there is to say; may be empty
	run   func(c *command, args []string) error
}

// commands is the table, in the order of the overview. Filled at the start, because help
// is in it and needs it.
var commands []*command

func init() {
	commands = []*command{
		&mountCmd, &umountCmd,
		&explainCmd, &treeCmd, &diffCmd,
		&statCmd, &watchCmd, &settleCmd, &checkCmd,
		&imageCmd, &commitCmd,
		&runCmd, &createCmd, &startCmd, &stopCmd, &execCmd, &psCmd, &logsCmd, &rmCmd, &volumeCmd,
		&benchCmd, &demoCmd, &labCmd, &versionCmd, &helpCmd,
	}
}

// findCommand returns the command of that name, which may be of two words, or nil.
func findCommand(name string) *command {
	for _, c := range slices.Concat(commands, imageCommands, volumeCommands) {
		if c.name == name {
			return c
		}
	}
	return nil
}

// flags returns the flag set of c, with --help in it.
func (c *command) flags() *pflag.FlagSet {
	f := pflag.NewFlagSet(c.name, pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.SortFlags = false
	f.Usage = func() { c.help(stdout, f) }
	return f
}

// parse reads args; what is left must be between least and most words (most < 0: any
// number). After --help the error is pflag.ErrHelp and the help is printed.
func (c *command) parse(f *pflag.FlagSet, args []string, least, most int) error {
	err := f.Parse(args)
	switch {
	case err == pflag.ErrHelp:
		return err
	case err != nil:
		return usageError{flagError(c, err)}
	case f.NArg() < least || most >= 0 && f.NArg() > most:
		return usagef("%s: usage: %s", c.name, c.usage())
	}
	return nil
}

// flagError leaves pflag's frame away where the mount option or the value at fault is named
// already.
func flagError(c *command, err error) error {
	var option *mountopt.Error
	if errors.As(err, &option) {
		return option
	}
	var value *pflag.InvalidValueError
	if errors.As(err, &value) {
		if cause := value.Unwrap(); cause != nil && strings.Contains(cause.Error(), strconv.Quote(value.GetValue())) {
			return fmt.Errorf("%s: %w", c.name, cause)
		}
	}
	return fmt.Errorf("%s: %w", c.name, err)
}

func (c *command) usage() string {
	return strings.TrimSpace("plyfs " + c.name + " [flags] " + c.args)
}

func (c *command) help(w io.Writer, f *pflag.FlagSet) {
	fmt.Fprintf(w, "%s\n\nusage: %s\n", c.short, c.usage())
	if c.long != "" {
		fmt.Fprintf(w, "\n%s\n", c.long)
	}
	if f.HasFlags() {
		const boolean = "[=true|false]" // true enough, but in everybody's way
		fmt.Fprintf(w, "\n%s", strings.ReplaceAll(f.FlagUsages(), boolean, strings.Repeat(" ", len(boolean))))
	}
}

func printOverview(w io.Writer) {
	fmt.Fprint(w, `plyfs mounts a stack of directories as one filesystem: the top one takes every
change, the ones below stay as they are.

  plyfs mount --lower TOP --lower NEXT ... [--upper DIR] MOUNTPOINT
  plyfs -o lowerdir=TOP:NEXT,upperdir=DIR,workdir=DIR MOUNTPOINT
  plyfs umount MOUNTPOINT

commands:
`)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, c := range commands {
		fmt.Fprintf(t, "  %s\t%s\n", c.name, c.short)
	}
	t.Flush()
	fmt.Fprint(w, "\nplyfs help COMMAND says more; plyfs help options lists what may follow -o.\n")
}

func printJSON(v any) error { return printJSONTo(os.Stdout, v) }

func printJSONTo(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
