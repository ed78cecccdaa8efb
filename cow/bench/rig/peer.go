package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Stack is what a peer mounts.
type Stack struct {
	Lowers []string // topmost first
	// Upper and Work are empty for a read-only view.
	Upper, Work string
	// Plain is a directory with the same content and no union.
	Plain string
	// Volatile asks that nothing be synced.
	Volatile bool
}

// Peer is one way to see a stack as one tree.
type Peer struct {
	Name string // short, without spaces
	// Daemon says that a process serves the mount.
	Daemon bool
	check  func() error
	mount  func(s *Stack, at string) error
	copy   func(from, to string) error // of one that does not mount
	settle func(at string) error       // completes what was left unfinished; nil if nothing ever is
}

// Check reports why the peer cannot be used here; nil when it can.
func (p *Peer) Check() error {
	if p.check == nil {
		return nil
	}
	return p.check()
}

// Mount is a mounted stack.
type Mount struct {
	Peer *Peer
	// Dir is the root of the view.
	Dir string
	// Took is how long it took until the mount command returned.
	Took    time.Duration
	daemons []int
}

// Mount mounts s at the directory at, which is made when missing.
func (p *Peer) Mount(s *Stack, at string) (*Mount, error) {
	if p.mount == nil {
		return &Mount{Peer: p, Dir: s.Plain}, nil
	}
	dirs := []string{at}
	if s.Upper != "" {
		dirs = append(dirs, s.Upper, s.Work)
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	start := time.Now()
	if err := p.mount(s, at); err != nil {
		return nil, fmt.Errorf("mount %s: %w", p.Name, err)
	}
	m := &Mount{Peer: p, Dir: at, Took: time.Since(start)}
	if p.Daemon {
		m.daemons = processesNaming(at)
	}
	return m, nil
}

// unmountPatience is how long a mount may stay busy, or its daemon may go on after the mount is gone.
const unmountPatience = 2 * time.Minute

// Close unmounts and waits until the daemon has ended.
func (m *Mount) Close() error {
	if m.Peer.mount == nil {
		return nil
	}
	deadline := time.Now().Add(unmountPatience)
	for {
		err := unix.Unmount(m.Dir, 0)
		if err == nil || err == unix.EINVAL {
			break
		}
		if err != unix.EBUSY || time.Now().After(deadline) {
			unix.Unmount(m.Dir, unix.MNT_DETACH)
			return fmt.Errorf("unmount %s: %w", m.Peer.Name, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, pid := range m.daemons {
		for alive(pid) {
			if time.Now().After(deadline) {
				unix.Kill(pid, unix.SIGKILL)
				return fmt.Errorf("%s: process %d stayed after the unmount", m.Peer.Name, pid)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// Mounts says whether the peer mounts anything at all.
func (p *Peer) Mounts() bool { return p.mount != nil }

// Abandon takes a mount away after a failure, whoever still uses it.
func (m *Mount) Abandon() {
	if m.Peer.mount == nil {
		return
	}
	_ = unix.Unmount(m.Dir, unix.MNT_DETACH)
	for _, pid := range m.daemons {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// Settles says whether [Mount.Settle] has anything to do.
func (m *Mount) Settles() bool { return m.Peer.settle != nil }

// Settle completes the files that were left unfinished.
func (m *Mount) Settle() error { return m.Peer.settle(m.Dir) }

// Copy copies a file to a new one, in the way of a peer that does not mount.
func (p *Peer) Copy(from, to string) error { return p.copy(from, to) }

// Kernel is the kernel's overlayfs; options are further mount options, as key or key=value.
func Kernel(name string, options ...string) *Peer {
	return &Peer{
		Name: name,
		check: func() error {
			if slices.Contains(options, "metacopy=on") && !initialUser() {
				return errors.New("the kernel takes metacopy=on from root only")
			}
			b, err := os.ReadFile("/proc/filesystems")
			if err == nil && !strings.Contains(string(b), "\toverlay\n") {
				if exec.Command("modprobe", "overlay").Run() != nil {
					return errors.New("this kernel has no overlayfs")
				}
			}
			return err
		},
		mount: func(s *Stack, at string) error {
			o := options
			if s.Volatile {
				o = append([]string{"volatile"}, o...)
			}
			if !initialUser() {
				o = append([]string{"userxattr"}, o...)
			}
			return mountOverlay(s, at, o)
		},
	}
}

// mountOverlay uses the mount interface of file descriptors, which takes layers one at a
// time: mount(2) has one page for all options, too little for hundreds of layers.
func mountOverlay(s *Stack, at string, options []string) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fs)
	set := func(key, value string) error {
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			return fmt.Errorf("%s=%s: %w%s", key, value, err, kernelMessage(fs))
		}
		return nil
	}
	for _, l := range s.Lowers {
		if err := set("lowerdir+", l); err != nil {
			return err
		}
	}
	if s.Upper != "" {
		if err := errors.Join(set("upperdir", s.Upper), set("workdir", s.Work)); err != nil {
			return err
		}
	}
	for _, o := range options {
		key, value, ok := strings.Cut(o, "=")
		if !ok {
			err = unix.FsconfigSetFlag(fs, key)
		} else {
			err = unix.FsconfigSetString(fs, key, value)
		}
		if err != nil {
			return fmt.Errorf("option %s: %w%s", o, err, kernelMessage(fs))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("create: %w%s", err, kernelMessage(fs))
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fsmount: %w%s", err, kernelMessage(fs))
	}
	defer unix.Close(mnt)
	return unix.MoveMount(mnt, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// kernelMessage reads what the kernel says about a failed mount.
func kernelMessage(fs int) string {
	b := make([]byte, 512)
	n, err := unix.Read(fs, b)
	if err != nil || n <= 0 {
		return ""
	}
	return " (" + strings.TrimSpace(string(b[:n])) + ")"
}

// FuseOverlayfs is the fuse-overlayfs found on the path.
func FuseOverlayfs() *Peer {
	return &Peer{
		Name:   "fuse-overlayfs",
		Daemon: true,
		check:  onPath("fuse-overlayfs"),
		mount: func(s *Stack, at string) error {
			o := "lowerdir=" + strings.Join(s.Lowers, ":")
			if s.Upper != "" {
				o += ",upperdir=" + s.Upper + ",workdir=" + s.Work
			}
			if s.Volatile {
				o += ",volatile"
			}
			return run("fuse-overlayfs", "-o", o, at)
		},
	}
}

// UnionfsFuse is the unionfs-fuse found on the path. It has no way to leave syncs out.
func UnionfsFuse() *Peer {
	return &Peer{
		Name:   "unionfs-fuse",
		Daemon: true,
		check:  onPath("unionfs"),
		mount: func(s *Stack, at string) error {
			if s.Volatile {
				return errors.New("has no volatile mode")
			}
			var branches []string
			if s.Upper != "" {
				branches = append(branches, s.Upper+"=RW")
			}
			for _, l := range s.Lowers {
				branches = append(branches, l+"=RO")
			}
			return run("unionfs", "-o", "cow", strings.Join(branches, ":"), at)
		},
	}
}

// Plyfs is the plyfs binary at path; flags go to its mount command.
func Plyfs(name, path string, flags ...string) *Peer {
	return &Peer{
		Name:   name,
		Daemon: true,
		check: func() error {
			if path == "" {
				return errors.New("no binary given")
			}
			_, err := os.Stat(path)
			return err
		},
		settle: func(at string) error { return run(path, "settle", "--quiet", at) },
		mount: func(s *Stack, at string) error {
			args := []string{"mount"}
			for _, l := range s.Lowers {
				args = append(args, "--lower", l)
			}
			if s.Upper != "" {
				args = append(args, "--upper", s.Upper, "--work", s.Work)
			}
			if s.Volatile {
				args = append(args, "-o", "volatile")
			}
			return run(path, append(append(args, flags...), at)...)
		},
	}
}

func onPath(name string) func() error {
	return func() error {
		_, err := exec.LookPath(name)
		return err
	}
}

// run runs a mount command in the environment a user would have. Its output
// goes to a file, because a daemon that kept a pipe open would keep us waiting.
func run(name string, args ...string) error {
	out, err := os.CreateTemp("", "plyfs-bench-output-*")
	if err != nil {
		return err
	}
	defer out.Close()
	os.Remove(out.Name())
	cmd := exec.Command(name, args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GODEBUG=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		b := make([]byte, 2048)
		n, _ := out.ReadAt(b, 0)
		return fmt.Errorf("%s: %w: %s", filepath.Base(name), err, strings.TrimSpace(string(b[:n])))
	}
	return nil
}
