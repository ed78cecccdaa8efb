package main

import (
	"strings"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/cmd/plyfs/mountopt"
)

// The other way to speak to plyfs is that of mount(8) and of fuse-overlayfs:
//
//	plyfs [-f] [-o OPTIONS] MOUNTPOINT             fuse-overlayfs, Podman's mount_program
//	plyfs SOURCE MOUNTPOINT -o OPTIONS             mount.fuse, for type fuse.plyfs
//	mount.fuse.plyfs SOURCE MOUNTPOINT -o OPTIONS  mount(8) itself
//
// SOURCE names nothing; it is shown in the first column of /proc/mounts.

// wantsHelper tells by the arguments that no subcommand follows (by the name: launch.IsHelperName): there is a -o, or nothing but flags.
func wantsHelper(args []string) bool {
	if strings.HasPrefix(args[0], "-") {
		return true
	}
	for _, a := range args {
		if strings.HasPrefix(a, "-o") {
			return true
		}
	}
	return false
}

var helperCmd = command{
	name:  "-o",
	args:  "OPTIONS [SOURCE] MOUNTPOINT",
	short: "mount, in the words of mount(8) and fuse-overlayfs",
}

func mountHelper(args []string) error {
	c := &helperCmd
	var o mountopt.Options
	f := c.flags()
	f.VarP(&valueFlag{"options", o.Parse}, "options", "o", "mount options, between commas; may be repeated; see plyfs help options")
	foreground := f.BoolP("foreground", "f", false, "stay until unmounted")
	debug := f.BoolP("debug", "d", false, "stay until unmounted, and say more")
	verbose := f.BoolP("verbose", "v", false, "say more")
	version := f.BoolP("version", "V", false, "print the version")
	// What mount(8) may pass to a helper, and what is so anyway.
	f.BoolP("no-mtab", "n", false, "no effect")
	f.BoolP("sloppy", "s", false, "no effect")
	f.StringP("types", "t", "", "no effect")
	if err := f.Parse(args); err != nil {
		if err == pflag.ErrHelp {
			return err
		}
		return usageError{flagError(c, err)}
	}
	if *version {
		return printVersion(false)
	}
	o.Verbose = o.Verbose || *debug || *verbose
	words := f.Args()
	switch {
	case len(words) == 2:
		if o.Source == "" && words[0] != "none" {
			o.Source = words[0]
		}
		words = words[1:]
	case len(words) != 1:
		return usagef("usage: plyfs -o OPTIONS [SOURCE] MOUNTPOINT")
	}
	return mount(&o, words[0], *foreground || *debug)
}
