package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/cell"
	"github.com/plyfs/plyfs/cmd/plyfs/keeper"
	"github.com/plyfs/plyfs/cmd/plyfs/mountopt"
	"github.com/plyfs/plyfs/layer/store"
	"github.com/plyfs/plyfs/layer/store/self"
	"github.com/plyfs/plyfs/layer/store/userns"
	"github.com/plyfs/plyfs/overlay"
	"github.com/plyfs/plyfs/overlay/fusefs"
	"github.com/plyfs/plyfs/overlay/graft"
)

// keepName is the subcommand that a container's daemon is; nobody types it.
const keepName = "keep-container"

// Descriptors of a keeper.
const (
	keepConnFD  = 3
	keepStdioFD = 4
)

// What a keeper is for.
const (
	keepRun  = "run"  // the command of the container
	keepShow = "show" // the view alone, without what is mounted into it
	keepLook = "look" // the same, and nothing is to be changed
)

// startKeeper starts the daemon of a container, and returns the connection with it. files are the standard
// input, output and error of the container's command.
func startKeeper(s *store.Store, c *store.Container, files [3]*os.File, purpose string) (*keeper.Session, error) {
	log, err := os.OpenFile(s.ContainerPath(c, "log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no container %s: %w", c.Name, store.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	defer log.Close()
	conn, theirs, err := keeper.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command(self.Program())
	cmd.Args = []string{"plyfs", keepName, s.Root(), c.Name, purpose}
	cmd.Stderr = log
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{theirs, files[0], files[1], files[2]}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if userns.Rootless() {
		// A plain user may mount in a namespace of their own.
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNS
	}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("starting the container's daemon: %w", err)
	}
	go func() { _ = cmd.Wait() }()
	return keeper.NewSession(conn), nil
}

// keep is the daemon: plyfs keep-container ROOT NAME PURPOSE.
func keep(args []string) error {
	if len(args) != 3 {
		return usagef("%s is for plyfs itself; see plyfs run", keepName)
	}
	for fd := keepConnFD; fd < keepStdioFD+3; fd++ {
		unix.CloseOnExec(fd)
	}
	conn := keeper.NewConn(os.NewFile(keepConnFD, "control"))
	var files [3]*os.File
	for i := range files {
		files[i] = os.NewFile(uintptr(keepStdioFD+i), "stdio")
	}
	// Handled, and not ignored: that would be inherited by what runs in the container.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGPIPE)
	s, err := store.Open(args[0])
	if err == nil {
		err = keepContainer(s, args[1], args[2], conn, files)
	}
	if err != nil {
		_ = conn.Send(&keeper.Message{Error: err.Error(), Code: cell.CodeFailed})
	}
	return err
}

func keepContainer(s *store.Store, name, purpose string, conn *keeper.Conn, files [3]*os.File) error {
	c, err := s.Container(name)
	if err != nil {
		return err
	}
	release, err := s.LockContainer(c)
	if errors.Is(err, store.ErrRunning) {
		_ = conn.Send(&keeper.Message{Error: err.Error(), Running: true, Code: cell.CodeFailed})
		return nil
	}
	if err != nil {
		return err
	}
	defer release()
	if userns.Rootless() {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			return fmt.Errorf("private mounts: %w", err)
		}
	}
	detachStale(s, c)
	img, err := s.Image(c.Image)
	if err != nil {
		return fmt.Errorf("container %s: %w", c.Name, err)
	}
	// As long as the container is there the image is; but which directories its layers are in may change, where
	// a damaged record is mended.
	letGo, err := s.HoldImage(img)
	if err != nil {
		return fmt.Errorf("container %s: %w", c.Name, err)
	}
	defer letGo()
	merged := s.ContainerPath(c, "merged")
	srv := &service{mountpoint: merged, stamp: true}
	srv.relay = func(text string) { _ = conn.Send(&keeper.Message{Say: text}) }
	k := &keeper.Keeper{Store: s, Container: c, Log: srv.say, Look: looker(s, c)}
	if purpose != keepRun {
		srv.options = layersOf(s, c, img)
		if purpose == keepLook {
			srv.options.ReadOnly, srv.options.NoSettle, srv.options.SettleBudget = true, true, -1
		}
		k.Pack = packer(s, c, nil)
	} else if err := prepareRun(s, c, img, srv, k); err != nil {
		return err
	}
	mount := func(ready func() error, quit <-chan struct{}, discarded func() bool) error {
		srv.quit, srv.discarded = quit, discarded
		return srv.serve(func() error {
			srv.mute()
			return ready()
		})
	}
	return k.Run(conn, files, mount, release)
}

// prepareRun fills in what a keeper needs to run the container's command.
func prepareRun(s *store.Store, c *store.Container, img *store.Image, srv *service, k *keeper.Keeper) (err error) {
	if err := fillVolumes(s, c); err != nil {
		return err
	}
	if srv.options, err = containerOptions(s, c, img); err != nil {
		return err
	}
	srv.prepare = func(view *overlay.FS) (err error) {
		k.Spec.Tmp, err = addMountPoints(s, c, srv.options, view)
		return err
	}
	srv.complete = func(view *graft.Union) error { return makeWorkDir(c, k.Spec.Tmp, view) }
	if k.Runtime, err = keeper.NewRuntime(c.Runtime, s.ContainerPath(c), c.ID); err != nil {
		return err
	}
	k.Spec = &cell.Spec{Root: srv.mountpoint, Hostname: c.Hostname, Args: c.Args, Env: c.Env, Dir: c.Dir, User: c.User, Terminal: c.Terminal}
	var mounted []string
	for _, m := range c.Mounts {
		mounted = append(mounted, m.Target)
	}
	k.Spec.Mounted = cellMounts(srv.options.Grafts)
	k.Pack = packer(s, c, mounted)
	return nil
}

// cellMounts describes grafts to whoever mounts them once more.
func cellMounts(grafts []graft.Spec) []cell.Mount {
	var out []cell.Mount
	for _, g := range grafts {
		m := cell.Mount{Target: g.Target, Source: cmp.Or(g.Path, g.Source), ReadOnly: g.ReadOnly}
		if g.Kind == graft.Tmpfs {
			m.Options = []string{"nosuid", "nodev", fmt.Sprintf("mode=%o", cmp.Or(g.Mode, 0o1777)), fmt.Sprintf("uid=%d", g.UID), fmt.Sprintf("gid=%d", g.GID)}
			if g.Size != 0 {
				m.Options = append(m.Options, fmt.Sprintf("size=%d", g.Size))
			}
		}
		out = append(out, m)
	}
	return out
}

// layersOf are the options of a mount of a container without what is mounted into it.
func layersOf(s *store.Store, c *store.Container, img *store.Image) *mountopt.Options {
	lowers := img.LayerDirs()
	if len(lowers) == 0 { // an image may have none, a mount may not
		lowers = []string{s.ContainerPath(c, "nothing")}
		_ = os.Mkdir(lowers[0], 0o755) // or the mount says why
	}
	return &mountopt.Options{Lowers: lowers, Upper: s.ContainerPath(c, "upper"), Work: s.ContainerPath(c, "work"), Source: "plyfs:" + c.Name}
}

// containerOptions are the options of the mount of a container.
func containerOptions(s *store.Store, c *store.Container, img *store.Image) (*mountopt.Options, error) {
	o := layersOf(s, c, img)
	o.ReadOnly = c.ReadOnly
	if err := writeEtc(s, c); err != nil {
		return nil, err
	}
	var err error
	if o.Grafts, err = containerGrafts(s, c); err != nil {
		return nil, err
	}
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return o, nil
}

// containerGrafts returns what is mounted into the view of a container: its mounts, and the files
// of /etc that depend on the host, where nothing else is.
func containerGrafts(s *store.Store, c *store.Container) ([]graft.Spec, error) {
	var specs []graft.Spec
	taken := map[string]bool{}
	for _, m := range c.Mounts {
		g := graft.Spec{Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly, Size: m.Size, Mode: m.Mode, UID: m.UID, GID: m.GID}
		switch m.Type {
		case store.VolumeMount:
			v, err := s.Volume(m.Source)
			if err != nil {
				return nil, err
			}
			g.Kind, g.Path = graft.Volume, v.Dir
		case store.TmpfsMount:
			g.Kind = graft.Tmpfs
		}
		taken[m.Target] = true
		specs = append(specs, g)
	}
	for _, name := range []string{"resolv.conf", "hosts", "hostname"} {
		if target := "/etc/" + name; !taken[target] && !taken["/etc"] && !taken["/"] {
			specs = append(specs, graft.Spec{Source: s.ContainerPath(c, "etc", name), Target: target})
		}
	}
	return specs, nil
}

// writeEtc writes the files of /etc that depend on the host.
func writeEtc(s *store.Store, c *store.Container) error {
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t" + c.Hostname + "\n"
	for name, text := range map[string]string{"resolv.conf": string(resolv), "hosts": hosts, "hostname": c.Hostname + "\n"} {
		path := s.ContainerPath(c, "etc", name)
		// In place: a container that runs has the file itself.
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// detachStale takes away mounts of a container's view that a killed daemon left. The caller
// holds the container's lock: nobody serves them.
func detachStale(s *store.Store, c *store.Container) {
	for range 100 {
		if fusefs.Detach(s.ContainerPath(c, "merged")) != nil {
			return
		}
	}
}

// waitGone waits for the end of a container's daemon that cannot be talked to any more.
func waitGone(s *store.Store, c *store.Container) error {
	for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		st, err := s.State(c)
		if errors.Is(err, store.ErrNotFound) || err == nil && !st.Status.Live() {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return silentError(s, c)
}

func silentError(s *store.Store, c *store.Container) error {
	return fmt.Errorf("container %s: its daemon neither answers nor ends; %s has its messages", c.Name, s.ContainerPath(c, "log"))
}
