package main

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/cmd/plyfs/launch"
	"github.com/plyfs/plyfs/cmd/plyfs/mountopt"
	"github.com/plyfs/plyfs/overlay/graft"
)

var mountCmd = command{
	name:  "mount",
	args:  "MOUNTPOINT",
	short: "mount a stack of directories",
	long: `What is mounted are directories (--lower, --upper), an image, or a container that does
not run; nothing is started. The lower directories are only read. Changes go to the upper directory; without one
the view is read-only. The command returns when the mount can be used; a daemon
serves it until it is unmounted (plyfs umount, umount, fusermount3 -u) or gets
SIGTERM or SIGINT.`,
	run: runMount,
}

func runMount(c *command, args []string) error {
	var o mountopt.Options
	f := c.flags()
	f.Var(&valueFlag{"dir", func(v string) error { o.Lowers = append(o.Lowers, v); return nil }}, "lower", "lower directory, once per layer, topmost first")
	f.Var(&valueFlag{"dir", func(v string) error { o.DataLowers = append(o.DataLowers, v); return nil }}, "data-lower", "directory that holds only data of metadata-only files; may be repeated")
	f.StringVar(&o.Image, "image", "", "the layers of an image of the store, by its `NAME` or id, as the lower directories")
	f.StringVar(&o.Container, "container", "", "a container's `NAME`: its layers, its writable layer, and what is mounted into it")
	f.StringVar(&o.Root, "root", "", "`dir`ectory of the store with images, containers and volumes (default: see plyfs image)")
	f.StringVar(&o.Upper, "upper", "", "`dir`ectory that takes the changes")
	f.StringVar(&o.Work, "work", "", "empty `dir`ectory on the upper's filesystem (default: one is made beside the upper)")
	f.Var(&valueFlag{"mode", func(v string) error { return o.Set(mountopt.Pair{Key: "mode", Value: v, HasValue: true}) }}, "mode",
		"what the kernel may do by itself: cached (default), passthrough (root: it reads and writes files directly), shared (nothing: the lower layers may change underneath)")
	f.Var(&valueFlag{"size", func(v string) (err error) { o.Threshold, err = mountopt.ParseThreshold(v); return err }}, "threshold",
		"from this file size on (like 1M), a write copies up only the range it touches; or off")
	f.Var(&valueFlag{"size", func(v string) (err error) { o.SettleBudget, err = mountopt.ParseBudget(v); return err }}, "settle-budget",
		"how much of the rest is copied per second when nothing changes (default 64M); or off")
	f.BoolVar(&o.NoSettle, "no-settle", false, "leave partly copied files unfinished at unmount")
	f.BoolVar(&o.ReadOnly, "read-only", false, "no changes, even with an upper")
	f.BoolVar(&o.AllowOther, "allow-other", false, "let other users in (default for root)")
	for _, g := range []struct {
		name, kind, text string
		parse            func(string) (graft.Spec, error)
	}{
		{"bind", "src:dst[:ro]", "show a directory or file of the host at dst in the view; may be repeated", graft.ParseBind},
		{"volume", "[src:]dst[:ro]", "as docker run -v: src is a path with a slash, or the name of a volume", graft.ParseVolume},
		{"tmpfs", "dst[:options]", "an empty place in memory: size, mode, uid, gid", graft.ParseTmpfs},
		{"mount", "type=...,source=...,target=...", "any of these, as docker run --mount", graft.ParseMount},
	} {
		f.Var(&valueFlag{g.kind, func(v string) error {
			s, err := g.parse(v)
			o.Grafts = append(o.Grafts, s)
			return err
		}}, g.name, g.text)
	}
	f.VarP(&valueFlag{"options", o.Parse}, "options", "o", "mount options, between commas; may be repeated; see plyfs help options")
	f.StringVar(&o.Log, "log", "", "`file` for the daemon's messages (default: $PLYFS_LOG, or none)")
	foreground := f.BoolP("foreground", "f", false, "stay until unmounted, with messages on standard error if no log is named")
	f.BoolVarP(&o.Verbose, "verbose", "v", false, "say more")
	if err := c.parse(f, args, 1, 1); err != nil {
		return err
	}
	return mount(&o, f.Arg(0), *foreground)
}

// valueFlag is a flag whose values are handed to a function as they come.
type valueFlag struct {
	kind string
	set  func(string) error
}

func (f *valueFlag) String() string     { return "" }
func (f *valueFlag) Type() string       { return f.kind }
func (f *valueFlag) Set(v string) error { return f.set(v) }

var _ pflag.Value = (*valueFlag)(nil)

// mount mounts as o says, in this process or in a daemon.
func mount(o *mountopt.Options, mountpoint string, foreground bool) error {
	if o.Remount != nil {
		return remount(o.Remount, mountpoint)
	}
	if err := o.Validate(); err != nil {
		return usageError{err}
	}
	if mountpoint == "" || slices.Contains(o.Lowers, "") || slices.Contains(o.DataLowers, "") {
		return usagef("mount: a directory without a name")
	}
	if o.Log == "" {
		o.Log = os.Getenv(logVariable)
	}
	if !launch.Waited() && !foreground {
		if code := startDaemon(); code != 0 {
			return exitCode(code) // it has said why
		}
		return nil
	}
	// A daemon leaves the working directory, and paths that do not start at the root
	// are what Podman gives.
	if err := fromRoot(paths(o, &mountpoint)); err != nil {
		return err
	}
	if launch.Waited() {
		return serveAsDaemon(o, mountpoint)
	}
	return serveHere(o, mountpoint)
}

// fromRoot makes paths absolute, as filepath.Abs does, which asks for the working directory anew for each.
func fromRoot(list []*string) error {
	dir := ""
	for _, p := range list {
		switch {
		case *p == "":
			continue
		case filepath.IsAbs(*p):
			*p = filepath.Clean(*p)
			continue
		case dir == "":
			var err error
			if dir, err = os.Getwd(); err != nil {
				return err
			}
		}
		*p = filepath.Join(dir, *p)
	}
	return nil
}

func paths(o *mountopt.Options, mountpoint *string) []*string {
	list := []*string{&o.Upper, &o.Work, &o.Log, &o.Root, mountpoint}
	for i := range o.Lowers {
		list = append(list, &o.Lowers[i])
	}
	for i := range o.DataLowers {
		list = append(list, &o.DataLowers[i])
	}
	for i := range o.Grafts {
		if g := &o.Grafts[i]; g.Kind == graft.Bind {
			list = append(list, &g.Source)
		}
	}
	return list
}
