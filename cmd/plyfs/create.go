package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/cmd/plyfs/cell"
	"github.com/plyfs/plyfs/cmd/plyfs/keeper"
	"github.com/plyfs/plyfs/layer/store"
	"github.com/plyfs/plyfs/overlay"
	"github.com/plyfs/plyfs/overlay/graft"
)

var createCmd = command{
	name:  "create",
	args:  "IMAGE [COMMAND ARG...]",
	short: "make a container without starting it",
	long:  `Prints its name. plyfs start runs it. The flags are those of plyfs run.`,
	run:   runCreate,
}

// containerFlags are the flags of run and create.
type containerFlags struct {
	root         *string
	name         string
	env          []string
	envFiles     []string
	dir          string
	user         string
	hostname     string
	entrypoint   string
	labels       []string
	mounts       []store.Mount
	volumesFrom  []store.VolumesFrom
	runtime      string
	stopSignal   string
	terminal     bool
	stdin        bool
	readOnly     bool
	autoRemove   bool
	entrypointOn func() bool
}

func (o *containerFlags) add(f *pflag.FlagSet) {
	f.SetInterspersed(false) // what follows the image is the command's
	o.root = storeFlag(f)
	f.StringVar(&o.name, "name", "", "`NAME` of the container (default: one is made up)")
	f.BoolVar(&o.autoRemove, "rm", false, "remove the container, with its anonymous volumes, when the command has ended")
	f.BoolVarP(&o.stdin, "interactive", "i", false, "connect standard input")
	f.BoolVarP(&o.terminal, "tty", "t", false, "give the command a terminal")
	f.StringArrayVarP(&o.env, "env", "e", nil, "`NAME=VALUE` for the environment, or NAME to take it from here; may be repeated")
	f.StringArrayVar(&o.envFiles, "env-file", nil, "`file` with a line for each variable; may be repeated")
	f.StringVarP(&o.dir, "workdir", "w", "", "working `dir`ectory in the container")
	f.StringVarP(&o.user, "user", "u", "", "`NAME|UID[:GROUP|GID]` to run as")
	f.StringVar(&o.hostname, "hostname", "", "host `name` in the container (default: the first 12 digits of its id)")
	f.StringVar(&o.entrypoint, "entrypoint", "", "`command` instead of the image's entrypoint; empty for none")
	o.entrypointOn = func() bool { return f.Changed("entrypoint") }
	f.VarP(&valueFlag{"[src:]dst[:ro,nocopy]", o.graft(graft.ParseVolume)}, "volume", "v", "mount a directory or file of the host (src has a slash), or a volume; may be repeated")
	f.Var(&valueFlag{"type=...,...", o.graft(graft.ParseMount)}, "mount", "type=bind|volume|tmpfs,source=…,target=…[,readonly]; may be repeated")
	f.Var(&valueFlag{"dst[:size=,mode=]", o.graft(graft.ParseTmpfs)}, "tmpfs", "mount an empty place in memory; may be repeated")
	f.Var(&valueFlag{"container[:ro]", o.from}, "volumes-from", "mount the volumes and binds of another container at the same places; may be repeated")
	f.BoolVar(&o.readOnly, "read-only", false, "the container can write to volumes, binds and tmpfs only")
	f.StringArrayVarP(&o.labels, "label", "l", nil, "`KEY=VALUE` to remember with it; may be repeated")
	f.StringVar(&o.stopSignal, "stop-signal", "", "`signal` that asks the command to end (default: the image's, or TERM)")
	f.StringVar(&o.runtime, "runtime", "", "OCI `runtime` to run the command with, like crun (default: plyfs itself)")
}

// graft returns the setter of a flag whose values parse reads.
func (o *containerFlags) graft(parse func(string) (graft.Spec, error)) func(string) error {
	return func(v string) error {
		g, err := parse(v)
		if err != nil {
			return err
		}
		if err := cell.CheckTarget(g.Target); err != nil {
			return err
		}
		m := store.Mount{Type: g.Kind.String(), Source: g.Source, Target: g.Target, ReadOnly: g.ReadOnly, NoCopy: g.NoCopy,
			Size: g.Size, Mode: g.Mode, UID: g.UID, GID: g.GID}
		if g.Kind == graft.Bind {
			if m.Source, err = filepath.Abs(g.Source); err != nil {
				return err
			}
			err = interruptibly(func() error {
				st, err := os.Stat(m.Source)
				if g.Create && (err != nil || st.IsDir()) { // a file is a source too
					err = os.MkdirAll(m.Source, 0o755)
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("source of the bind: %w", err)
			}
		}
		o.mounts = append(o.mounts, m)
		return nil
	}
}

func (o *containerFlags) from(v string) error {
	name, mode, has := strings.Cut(v, ":")
	if has && mode != "ro" && mode != "rw" || name == "" {
		return fmt.Errorf("%q: want CONTAINER, CONTAINER:ro or CONTAINER:rw", v)
	}
	o.volumesFrom = append(o.volumesFrom, store.VolumesFrom{Container: name, ReadOnly: mode == "ro"})
	return nil
}

// create makes the container and fills its new volumes.
func (o *containerFlags) create(s *store.Store, image string, args []string) (*store.Container, error) {
	given, err := environment(o.env, o.envFiles)
	if err != nil {
		return nil, err
	}
	labels, err := parseLabels(o.labels)
	if err != nil {
		return nil, err
	}
	said := [][]string{args, given, o.labels, {o.dir, o.user, o.hostname, o.entrypoint}}
	for _, m := range o.mounts {
		said = append(said, []string{m.Source, m.Target})
	}
	if err := areText(said...); err != nil {
		return nil, err
	}
	if o.stopSignal != "" {
		if _, err := keeper.ParseSignal(o.stopSignal); err != nil {
			return nil, err
		}
	}
	if o.dir != "" && !path.IsAbs(o.dir) {
		return nil, fmt.Errorf("working directory %q: want an absolute path", o.dir)
	}
	if err := keeper.CheckRuntime(o.runtime); err != nil {
		return nil, err
	}
	c := &store.Container{Name: o.name, ImageName: image, User: o.user, Dir: o.dir, Hostname: o.hostname, StopSignal: o.stopSignal,
		Terminal: o.terminal, Stdin: o.stdin, ReadOnly: o.readOnly, AutoRemove: o.autoRemove, Runtime: o.runtime, Labels: labels, Mounts: o.mounts}
	err = s.CreateContainer(c, o.volumesFrom, func(c *store.Container, img *store.Image) error {
		return o.complete(c, img, given, args)
	})
	if err != nil {
		return nil, err
	}
	if err := fillVolumes(s, c); err != nil {
		return nil, errors.Join(err, s.UndoCreate(c))
	}
	return c, nil
}

// complete fills in what the image says where the user said nothing.
func (o *containerFlags) complete(c *store.Container, img *store.Image, given, args []string) error {
	i := &img.Config
	entrypoint, cmd := i.Entrypoint, i.Cmd
	if o.entrypointOn() {
		// The image's command is meant for its own entrypoint.
		entrypoint, cmd = nil, nil
		if o.entrypoint != "" {
			entrypoint = []string{o.entrypoint}
		}
	}
	if len(args) > 0 {
		cmd = args
	}
	c.Args = append(append([]string{}, entrypoint...), cmd...)
	if len(c.Args) == 0 {
		return fmt.Errorf("image %s names no command: give one", c.ImageName)
	}
	if c.User == "" {
		c.User = i.User
	}
	if c.Dir == "" {
		c.Dir = i.WorkingDir
	}
	c.Dir = path.Clean("/" + c.Dir)
	if c.StopSignal == "" {
		c.StopSignal = i.StopSignal
	}
	if c.Hostname == "" {
		c.Hostname = c.ID[:12]
	}
	c.Env = []string{"PATH=" + cell.DefaultPath, "HOSTNAME=" + c.Hostname}
	if c.Terminal {
		c.Env = append(c.Env, "TERM=xterm")
	}
	c.Env = mergeEnv(mergeEnv(c.Env, i.Env), given)
	return leaveDoubles(c, img, len(o.mounts))
}

// leaveDoubles takes away what comes along (after the first asked mounts) where another mount has its place already under
// a name that leads there through a link of the image: VOLUME /var/run beside -v x:/run.
func leaveDoubles(c *store.Container, img *store.Image, asked int) error {
	if len(c.Mounts) < 2 || len(c.Mounts) == asked || len(img.Layers) == 0 {
		return nil
	}
	config := imageView(img)
	config.Log = func(string, ...any) {} // about the layers; the mount says it
	view, err := overlay.New(config)
	if err != nil {
		return err
	}
	defer view.Close()
	u, err := graft.New(view, graft.Config{})
	if err != nil {
		return err
	}
	defer u.Close()
	taken := map[string]bool{}
	kept := c.Mounts[:0:0]
	for i, m := range c.Mounts {
		where, err := u.Where(m.Target)
		if err != nil { // whoever mounts it says so
			where = m.Target
		}
		if i < asked || !taken[where] {
			kept = append(kept, m)
		}
		taken[where] = true
	}
	c.Mounts = kept
	return nil
}

// mergeEnv returns base with the variables of more, which replace those of the same name. A
// name without a value takes the variable away.
func mergeEnv(base, more []string) []string {
	for _, v := range more {
		name, _, has := strings.Cut(v, "=")
		kept := make([]string, 0, len(base)+1)
		for _, b := range base {
			if n, _, _ := strings.Cut(b, "="); n != name {
				kept = append(kept, b)
			}
		}
		if base = kept; has {
			base = append(base, v)
		}
	}
	return base
}

func runCreate(c *command, args []string) error {
	var o containerFlags
	f := c.flags()
	o.add(f)
	asJSON := f.Bool("json", false, "print JSON")
	if err := c.parse(f, args, 1, -1); err != nil {
		return err
	}
	s, err := openStore(*o.root)
	if err != nil {
		return err
	}
	box, err := o.create(s, f.Arg(0), f.Args()[1:])
	if err != nil {
		return err
	}
	return printEntry(s, box, *asJSON)
}
