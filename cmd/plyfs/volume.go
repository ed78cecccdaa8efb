package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/layer/store"
)

var volumeCmd = command{
	name:  "volume",
	args:  "create|ls|inspect|rm|prune",
	short: "directories with a name, which outlive the containers that use them",
	long: `  plyfs volume create [-l KEY=VALUE] [NAME]  without a name, one is made up
  plyfs volume ls [-q] [--json]
  plyfs volume inspect NAME...
  plyfs volume rm [-f] NAME...               refused while a container uses it
  plyfs volume prune [-a]                    those without a name that nobody uses; -a: all that nobody uses

A new volume that a container mounts gets what the image has at that place, once.`,
	run: runVolume,
}

var volumeCommands = []*command{
	{name: "volume create", args: "[NAME]", short: "make a volume and print its name", run: runVolumeCreate},
	{name: "volume ls", short: "list volumes", run: runVolumeList},
	{name: "volume inspect", args: "NAME...", short: "print all that is known of volumes, as JSON", run: runVolumeInspect},
	{name: "volume rm", args: "NAME...", short: "remove volumes and what is in them", run: runVolumeRemove},
	{name: "volume prune", short: "remove the volumes that nobody uses", run: runVolumePrune},
}

func runVolume(c *command, args []string) error { return runSub(c, volumeCommands, args) }

// runSub runs the subcommand of c that args begins with.
func runSub(c *command, list []*command, args []string) error {
	if len(args) == 0 {
		return usagef("usage: plyfs %s %s", c.name, c.args)
	}
	if args[0] == "-h" || args[0] == "--help" {
		c.help(stdout, pflag.NewFlagSet("", pflag.ContinueOnError))
		return pflag.ErrHelp
	}
	for _, sub := range list {
		if strings.TrimPrefix(sub.name, c.name+" ") == args[0] {
			return sub.run(sub, args[1:])
		}
	}
	return usagef("unknown command %q; usage: plyfs %s %s", c.name+" "+args[0], c.name, c.args)
}

func runVolumeCreate(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	labels := f.StringArrayP("label", "l", nil, "`KEY=VALUE` to remember with it; may be repeated")
	name := f.String("name", "", "`NAME`, as the argument")
	asJSON := f.Bool("json", false, "print JSON")
	if err := c.parse(f, args, 0, 1); err != nil {
		return err
	}
	if f.NArg() == 1 {
		if *name != "" {
			return usagef("volume create: two names")
		}
		*name = f.Arg(0)
	}
	pairs, err := parseLabels(*labels)
	if err != nil {
		return err
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	v, _, err := s.CreateVolume(*name, pairs)
	if err == nil && *asJSON {
		v, err = s.Volume(v.Name) // with its users
	}
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(v)
	}
	fmt.Fprintln(stdout, v.Name)
	return nil
}

func parseLabels(list []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, l := range list {
		key, value, _ := strings.Cut(l, "=")
		if key == "" {
			return nil, usagef("label %q has no name", l)
		}
		labels[key] = value
	}
	return labels, nil
}

func runVolumeList(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	quiet := f.BoolP("quiet", "q", false, "only the names")
	asJSON := f.Bool("json", false, "print JSON")
	if err := c.parse(f, args, 0, 0); err != nil {
		return err
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	all, err := s.Volumes()
	if err != nil {
		return err
	}
	switch {
	case *asJSON:
		return printJSON(all)
	case *quiet:
		for _, v := range all {
			fmt.Fprintln(stdout, v.Name)
		}
		return nil
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NAME\tCREATED\tUSED BY")
	for _, v := range all {
		users := strings.Join(v.Users, ", ")
		if users == "" {
			users = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", v.Name, agoText(v.Created), users)
	}
	return t.Flush()
}

func runVolumeInspect(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	f.Bool("json", true, "has no effect: it always prints JSON")
	if err := c.parse(f, args, 1, -1); err != nil {
		return err
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	found := []*store.Volume{}
	err = eachName(f.Args(), "volume inspect", func(name string) error {
		v, err := s.Volume(name)
		if err == nil {
			found = append(found, v)
		}
		return err
	})
	return errors.Join(printJSON(found), err)
}

func runVolumeRemove(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	force := f.BoolP("force", "f", false, "no error for one that does not exist")
	asJSON := f.Bool("json", false, "print JSON")
	if err := c.parse(f, args, 1, -1); err != nil {
		return err
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	return removeEach(f.Args(), "volume rm", *asJSON, func(name string) (bool, error) {
		return true, s.RemoveVolume(name, *force)
	})
}

func runVolumePrune(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	all := f.BoolP("all", "a", false, "also those with a name")
	f.BoolP("force", "f", false, "has no effect: it never asks")
	asJSON := f.Bool("json", false, "print JSON")
	if err := c.parse(f, args, 0, 0); err != nil {
		return err
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	removed, err := s.PruneVolumes(*all)
	if *asJSON {
		return errors.Join(printJSON(removed), err)
	}
	for _, name := range removed {
		fmt.Fprintln(stdout, name)
	}
	return err
}
