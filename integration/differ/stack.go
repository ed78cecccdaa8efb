package differ

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/overlay"
)

// variant is one way to mount both filesystems.
type variant struct {
	kernel string         // mount options
	plyfs  []string       // flags
	config overlay.Config // the same, for the union alone
	fs     string         // "tmpfs", or "" for the scratch directory's own filesystem
	mixed  bool           // every other lower is on another filesystem
	// alone: the kernel would not do the same, or not so that it lasts. The operations run on plyfs
	// only, and the kernel, mounted with these options, must show the tree of its upper.
	alone  bool
	reader string
	parts  bool // the kernel parts hard links
	// mode is a way of serving, by --mode: it needs a mount.
	mode string
	// graft: plyfs shows, as a bind over everything, what the kernel has mounted over its layers.
	graft bool
}

var variants = map[string]*variant{
	"default":   {kernel: "redirect_dir=on,index=on,xino=off", fs: "tmpfs"},
	"disk":      {kernel: "redirect_dir=on,index=on,xino=off"},
	"uncached":  {kernel: "redirect_dir=on,index=on,xino=off", plyfs: []string{"-o", "timeout=0"}, fs: "tmpfs"},
	"range":     {kernel: "redirect_dir=on,index=on,xino=off", plyfs: []string{"--threshold", "4k"}, config: overlay.Config{Threshold: 4096}},
	"metacopy":  {kernel: "redirect_dir=on,index=on,xino=off,metacopy=on", plyfs: []string{"-o", "metacopy=on"}, config: overlay.Config{Metacopy: overlay.On}, fs: "tmpfs"},
	"userxattr": {kernel: "userxattr,index=on,xino=off", plyfs: []string{"-o", "userxattr,redirect_dir=off"}, config: overlay.Config{UserXattr: overlay.On, Redirect: overlay.Off}, fs: "tmpfs"},
	"noindex":   {kernel: "redirect_dir=on,index=off,xino=off", plyfs: []string{"-o", "index=off"}, config: overlay.Config{Index: overlay.Off}, fs: "tmpfs"},
	"moves":     {kernel: "userxattr,index=on,xino=off", plyfs: []string{"-o", "userxattr"}, config: overlay.Config{UserXattr: overlay.On}, fs: "tmpfs", alone: true, reader: "userxattr,index=on,xino=off"},
	"bare":      {kernel: "redirect_dir=on,index=on,xino=off", fs: "tmpfs", alone: true, reader: "xino=off", parts: true},
	"mixed":     {kernel: "redirect_dir=on,index=on,xino=on", fs: "tmpfs", mixed: true},

	"passthrough": {kernel: "redirect_dir=on,index=on,xino=off", fs: "tmpfs", mode: "passthrough"},
	"shared":      {kernel: "redirect_dir=on,index=on,xino=off", fs: "tmpfs", mode: "shared"},

	"graft": {kernel: "redirect_dir=on,index=on,xino=off", fs: "tmpfs", mode: "cached", graft: true},

	"writeback":       {kernel: "redirect_dir=on,index=on,xino=off", plyfs: []string{"-o", "writeback=1"}, mode: "cached"},
	"range-writeback": {kernel: "redirect_dir=on,index=on,xino=off", plyfs: []string{"-o", "writeback=1", "--threshold", "4k"}, mode: "cached"},
	"range-pass":      {kernel: "redirect_dir=on,index=on,xino=off", plyfs: []string{"--threshold", "4k"}, mode: "passthrough"},
	"range-shared":    {kernel: "redirect_dir=on,index=on,xino=off", plyfs: []string{"--threshold", "4k"}, mode: "shared"},
	"range-metacopy":  {kernel: "redirect_dir=on,index=on,xino=off,metacopy=on", plyfs: []string{"--threshold", "4k", "-o", "metacopy=on"}, config: overlay.Config{Threshold: 4096, Metacopy: overlay.On}},
	"metacopy-pass":   {kernel: "redirect_dir=on,index=on,xino=off,metacopy=on", plyfs: []string{"-o", "metacopy=on"}, config: overlay.Config{Metacopy: overlay.On}, mode: "passthrough"},
	"noindex-pass":    {kernel: "redirect_dir=on,index=off,xino=off", plyfs: []string{"-o", "index=off"}, config: overlay.Config{Index: overlay.Off}, mode: "passthrough"},
	"userxattr-pass":  {kernel: "userxattr,index=on,xino=off", plyfs: []string{"-o", "userxattr,redirect_dir=off"}, config: overlay.Config{UserXattr: overlay.On, Redirect: overlay.Off}, fs: "tmpfs", mode: "passthrough"},
	"mixed-pass":      {kernel: "redirect_dir=on,index=on,xino=on", fs: "tmpfs", mixed: true, mode: "passthrough"},
	"mixed-range":     {kernel: "redirect_dir=on,index=on,xino=on", plyfs: []string{"--threshold", "4k"}, config: overlay.Config{Threshold: 4096}, mixed: true},
}

// stack is a case being run: directories and mounts.
type stack struct {
	dir    string
	c      *Case
	v      *variant
	lowers []string // topmost first
	now    unix.Timespec
	kernel side
	plyfs  side
	core   *coreTree       // without Case.Fuse
	log    []string        // of core
	odd    map[string]bool // see view.odd: of the upper that plyfs has
}

// side is one of the two filesystems.
type side struct {
	mnt   string
	upper string
	work  string
	pid   int
	up    bool
	view  view
}

// newStack makes the place for a case.
func newStack(dir string, c *Case) (*stack, error) {
	s := &stack{dir: dir, c: c, v: variants[c.Variant]}
	if c.on() == "tmpfs" {
		if err := unix.Mount("none", dir, "tmpfs", 0, "size=256m,mode=755"); err != nil {
			return nil, err
		}
	}
	if s.v.mixed {
		if err := os.Mkdir(dir+"/other", 0o755); err != nil {
			return nil, err
		}
		if err := unix.Mount("none", dir+"/other", "tmpfs", 0, "size=256m,mode=755"); err != nil {
			return nil, err
		}
	}
	s.kernel.mnt, s.plyfs.mnt = dir+"/mnt-kernel", dir+"/mnt-plyfs"
	s.kernel.upper, s.kernel.work = dir+"/upper-kernel", dir+"/work-kernel"
	s.plyfs.upper, s.plyfs.work = dir+"/upper-plyfs", dir+"/work-plyfs"
	for _, d := range []string{s.kernel.mnt, s.plyfs.mnt, s.kernel.upper, s.kernel.work, s.plyfs.upper, s.plyfs.work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
		if err := os.Chtimes(d, time.Unix(1000, 0), time.Unix(1000, 0)); err != nil { // the roots' must be equal
			return nil, err
		}
	}
	return s, nil
}

// layer makes one more lower layer: f runs on a view over those there are.
func (s *stack) layer(f func(v *view)) error {
	base := s.dir
	if s.v.mixed && len(s.lowers)%2 == 1 {
		base += "/other"
	}
	d := filepath.Join(base, fmt.Sprintf("lower%d", len(s.lowers)+1))
	if err := os.Mkdir(d, 0o755); err != nil {
		return err
	}
	root := sysTree(d)
	if len(s.lowers) > 0 {
		if err := os.Mkdir(d+".work", 0o755); err != nil {
			return err
		}
		if err := s.mountKernel(s.v.kernel, s.kernel.mnt, d, d+".work"); err != nil {
			return err
		}
		root = sysTree(s.kernel.mnt)
	}
	v := newView(root, unix.Timespec{})
	f(&v)
	v.closeSlots()
	if len(s.lowers) > 0 {
		if err := unmount(s.kernel.mnt); err != nil {
			return err
		}
		if err := os.RemoveAll(d + ".work"); err != nil {
			return err
		}
	}
	s.lowers = append([]string{d}, s.lowers...)
	return nil
}

func (s *stack) mountKernel(options, mnt, upper, work string) error {
	o := fmt.Sprintf("%s,lowerdir=%s,upperdir=%s,workdir=%s", options, strings.Join(s.lowers, ":"), upper, work)
	if err := unix.Mount("overlay", mnt, "overlay", 0, o); err != nil {
		return fmt.Errorf("the kernel does not mount %s: %w", o, err)
	}
	return nil
}

// mount mounts both.
func (s *stack) mount() error {
	if err := s.startClock(); err != nil {
		return err
	}
	if !s.v.alone {
		k := &s.kernel
		if err := s.mountKernel(s.v.kernel, k.mnt, k.upper, k.work); err != nil {
			return err
		}
		k.up = true
		k.view = s.newView(sysTree(k.mnt))
		k.view.oracle = true
	}
	return s.mountPlyfs()
}

// source is where the kernel mounts what is grafted.
func (s *stack) source() string { return s.dir + "/source" }

// startClock notes when the operations begin, once.
func (s *stack) startClock() error {
	if s.now == (unix.Timespec{}) {
		// Times come in steps of the kernel's clock: let the layers be older than that.
		time.Sleep(12 * time.Millisecond)
		var st unix.Stat_t
		if err := os.WriteFile(s.dir+"/clock", nil, 0o600); err != nil {
			return err
		}
		if err := unix.Stat(s.dir+"/clock", &st); err != nil {
			return err
		}
		s.now = st.Mtim
	}
	return nil
}

func (s *stack) newView(t tree) view {
	v := newView(t, s.now)
	v.noTimes = s.v.config.Metacopy == overlay.On
	v.user = s.v.config.UserXattr == overlay.On
	v.ownTime = strings.Contains(s.c.Variant, "writeback")
	v.trades = s.c.on() == "xfs"
	v.parts = s.v.parts || s.v.config.Index == overlay.Off
	return v
}

func (s *stack) mountPlyfs() error {
	p := &s.plyfs
	if !s.c.Fuse {
		cfg := s.v.config
		cfg.Lowers, cfg.Upper, cfg.Work = s.lowers, p.upper, p.work
		cfg.SquashUID, cfg.SquashGID = -1, -1
		cfg.Log = func(format string, args ...any) { s.log = append(s.log, fmt.Sprintf(format, args...)) }
		t, err := newCoreTree(cfg)
		if err != nil {
			return err
		}
		s.core = t
		p.view = s.newView(t)
		return nil
	}
	args := []string{"mount", "--log", s.dir + "/log"}
	if s.v.graft {
		for _, d := range []string{s.source(), s.dir + "/empty"} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		if err := s.mountKernel(s.v.kernel, s.source(), p.upper, p.work); err != nil {
			return err
		}
		args = append(args, "--lower", s.dir+"/empty", "--bind", s.source()+":/")
	} else {
		for _, d := range s.lowers {
			args = append(args, "--lower", d)
		}
		args = append(args, "--upper", p.upper, "--work", p.work)
	}
	if s.v.mode != "" {
		args = append(args, "--mode", s.v.mode)
	}
	args = append(append(args, s.v.plyfs...), p.mnt)
	if out, err := harness.Run(args...); err != nil {
		return fmt.Errorf("plyfs %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	p.up = true
	pid, err := harness.DaemonPID(p.mnt)
	if err != nil {
		return err
	}
	p.pid = pid
	p.view = s.newView(sysTree(p.mnt))
	p.view.oracle = s.v.graft // what is below is the kernel's
	return nil
}

// unmount ends both mounts and waits for the daemon.
func (s *stack) unmount() error {
	for _, d := range []*side{&s.kernel, &s.plyfs} {
		if !d.up {
			continue
		}
		d.view.closeSlots()
		if err := unmount(d.mnt); err != nil {
			return err
		}
		d.up = false
	}
	if s.core != nil {
		s.plyfs.view.closeSlots()
		if n := s.core.fs.Stat().Nodes; n != 1 {
			return fmt.Errorf("%d nodes are left when all but the root are forgotten", n)
		}
		err := s.core.fs.Close()
		s.core = nil
		return err
	}
	for i := 0; s.plyfs.pid > 0 && harness.Alive(s.plyfs.pid); i++ {
		if i > 30000 {
			return fmt.Errorf("the daemon %d stays", s.plyfs.pid)
		}
		time.Sleep(time.Millisecond)
	}
	s.plyfs.pid = 0
	if s.v.graft {
		if err := unmount(s.source()); err != nil && err != unix.EINVAL {
			return err
		}
	}
	return s.fault()
}

// fault reports what the daemon said of itself that it never should.
func (s *stack) fault() error {
	b, err := os.ReadFile(s.dir + "/log")
	if err == nil && (strings.Contains(string(b), "panic") || strings.Contains(string(b), "DATA RACE")) {
		return fmt.Errorf("the daemon logged a fault:\n%s", b)
	}
	return nil
}

// disk describes the layers as they are stored.
func (s *stack) disk() string {
	var b strings.Builder
	show := func(what, dir string) {
		v := newView(sysTree(dir), s.now)
		fmt.Fprintf(&b, "%s\n\t%s\n", what, strings.Join(v.Dump().Lines, "\n\t"))
	}
	show("upper of the kernel", s.kernel.upper)
	show("upper of plyfs", s.plyfs.upper)
	show("index of the kernel", s.kernel.work+"/index")
	show("index of plyfs", s.plyfs.work+"/index")
	for i, d := range s.lowers {
		show(fmt.Sprintf("lower %d", i+1), d)
	}
	return b.String()
}

func (s *stack) swap() {
	k, p := &s.kernel, &s.plyfs
	k.upper, p.upper = p.upper, k.upper
	k.work, p.work = p.work, k.work
}

func unmount(dir string) error {
	var err error
	for range 2000 {
		if err = unix.Unmount(dir, 0); err != unix.EBUSY {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// close takes everything away.
func (s *stack) close() {
	for _, d := range []*side{&s.kernel, &s.plyfs} {
		d.view.closeSlots()
	}
	if s.core != nil {
		_ = s.core.fs.Close()
	}
	if s.plyfs.pid > 0 {
		if err := s.unmount(); err != nil {
			_ = unix.Kill(s.plyfs.pid, unix.SIGKILL)
		}
	}
	harness.Unmount(s.dir)
	_ = exec.Command("chattr", "-R", "-f", "-i", "-a", s.dir).Run()
	_ = exec.Command("rm", "-rf", s.dir).Run()
}
