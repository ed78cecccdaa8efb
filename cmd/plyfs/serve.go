package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/mountopt"
	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/overlay"
	"github.com/plyfs/plyfs/overlay/fusefs"
	"github.com/plyfs/plyfs/overlay/graft"
)

// service is one mount, from the opening of the layers to the last goodbye.
type service struct {
	options    *mountopt.Options
	mountpoint string
	stamp      bool // messages carry the time

	// A mount that belongs to a container (keep.go): it ends when quit is closed, and no
	// signal means it. discarded, asked then and while files are completed, says that none need be.
	quit      <-chan struct{}
	discarded func() bool
	// prepare, if not nil, may add grafts, as soon as the layers are open.
	prepare func(view *overlay.FS) error
	// complete, if not nil, has the view with its grafts before anybody sees it.
	complete func(view *graft.Union) error

	mu    sync.Mutex
	relay func(text string) // also gets each message, until the mount is ready; guarded by mu
}

// say prints a message for the user.
func (s *service) say(format string, args ...any) {
	text := strings.TrimRight(fmt.Sprintf(format, args...), "\n")
	prefix := "plyfs: "
	if s.stamp {
		prefix = time.Now().Format("2006-01-02 15:04:05 ") + s.mountpoint + ": "
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(os.Stderr, prefix+text)
	if s.relay != nil {
		s.relay(oneLine(text))
	}
}

// mute ends the relay: nobody listens any more.
func (s *service) mute() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.relay = nil
}

// detail says what only those who asked for more want to know.
func (s *service) detail(format string, args ...any) {
	if s.options.Verbose {
		s.say(format, args...)
	}
}

func (s *service) describe(union *overlay.FS, f *fusefs.Options) {
	o := s.options
	for i, dir := range o.Lowers {
		s.detail("lower %d: %s", i+1, dir)
	}
	for i, dir := range o.DataLowers {
		s.detail("data %d: %s", i+1, dir)
	}
	if o.Upper != "" {
		s.detail("upper: %s", o.Upper)
	}
	if o.Verbose {
		for _, line := range union.Describe() {
			s.detail("%s", line)
		}
	}
	s.detail("mode %s, writeback %v, access lists %v, read-only %v, others allowed %v, timeouts %s, %s, %s",
		f.Mode, f.Writeback, f.ACL, f.ReadOnly, f.AllowOther, f.EntryTimeout, f.AttrTimeout, f.NegativeTimeout)
}

// serve mounts, calls ready, and serves until the mount is gone; then it settles and
// cleans up.
func (s *service) serve(ready func() error) (err error) {
	unix.Umask(0)
	// Nobody reading our messages is no reason to take the mount away.
	// Handled, and not ignored: that would be inherited by what runs in a container.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	stop := make(chan os.Signal, 4)
	if s.quit == nil {
		signal.Notify(stop, unix.SIGINT, unix.SIGTERM)
		if !signal.Ignored(unix.SIGHUP) { // in the foreground of a terminal that is being closed
			signal.Notify(stop, unix.SIGHUP)
		}
		defer signal.Stop(stop)
	}

	files, err := layer.RaiseNoFile()
	if err != nil {
		s.detail("open files: limit stays at %d: %v", files, err)
	}
	if s.quit == nil { // what runs in a container has its caller's limits
		if most := layer.RaiseFileSize(); most >= 0 {
			s.say("no file can be written beyond %d bytes, a limit of whoever mounts (ulimit -f)", most)
		}
	}
	release, err := s.openParts()
	if err != nil {
		return err
	}
	defer release()
	options, err := s.serveOptions()
	if err != nil {
		return err
	}
	if err := s.checkMountpoint(); err != nil {
		return err
	}
	union, err := overlay.New(s.config())
	if err != nil {
		return err
	}
	mounted := false
	defer func() {
		if !mounted {
			_ = union.Discard()
		}
	}()
	if union.ReadOnly() {
		options.ReadOnly = true
	}
	if s.prepare != nil {
		if err := s.prepare(union); err != nil {
			return err
		}
	}
	s.describe(union, &options)
	select {
	case sig := <-stop:
		return fmt.Errorf("%s: not mounted: %v", s.mountpoint, sig)
	default:
	}
	mount := func() (*fusefs.Server, error) {
		return fusefs.Mount(&view{FS: union, noFsync: s.options.NoFsync, about: s.about()}, s.mountpoint, options)
	}
	if len(s.options.Grafts) > 0 {
		grafted, err := s.graft(union)
		if err != nil {
			return err
		}
		defer grafted.Close()
		if s.complete != nil {
			if err := s.complete(grafted); err != nil {
				return err
			}
		}
		options.ReadOnly = !grafted.Writable()
		mount = func() (*fusefs.Server, error) {
			return fusefs.Mount(&graftedView{Union: grafted, noFsync: s.options.NoFsync, about: s.about()}, s.mountpoint, options)
		}
	}
	server, err := mount()
	if err != nil {
		return err
	}
	mounted = true
	if err := os.Chdir("/"); err != nil { // keep no other filesystem busy
		s.say("%v", err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	<-server.Ready
	if err := ready(); err != nil {
		s.say("%v", err) // whoever started us is gone: the mount stays
	}
	union.Prepare()
	defer runtime.KeepAlive(spareHeap())
	// What the start needed is given back, when those who waited for the mount have had their turn.
	shrink := time.AfterFunc(2*time.Second, debug.FreeOSMemory)
	defer shrink.Stop()
	err = s.wait(server, served, stop)
	if errors.Is(err, errPinned) || errors.Is(err, errAway) {
		return err // requests may still come: the union must stay open
	}
	if s.discarded != nil && s.discarded() {
		return errors.Join(err, union.Discard())
	}
	return errors.Join(err, union.Close())
}

// checkMountpoint ends early what cannot succeed. A mount whose daemon is dead is taken away.
func (s *service) checkMountpoint() error {
	err := fusefs.Check(s.mountpoint)
	for range 16 { // they may lie on each other
		if !errors.Is(err, fusefs.ErrDead) {
			break
		}
		if err := fusefs.Detach(s.mountpoint); err != nil {
			return err
		}
		s.say("%s: the daemon of an earlier mount died; its mount point was taken away", s.mountpoint)
		err = fusefs.Check(s.mountpoint)
	}
	return err
}

// wait returns when the mount is gone. A signal takes it away: at once, or,
// while somebody uses it, out of sight, to end with its last user. Where it cannot be found a second signal ends the
// service: it may have gone with the mount that it was in, and that may be there only because the layers in it are open here.
func (s *service) wait(server *fusefs.Server, served <-chan error, stop <-chan os.Signal) error {
	detached, away := false, false
	for {
		select {
		case err := <-served:
			return err
		case <-s.quit:
			return s.takeAway(server, served)
		case sig := <-stop:
			if detached {
				s.say("%v: still in use by somebody; ends with its last user", sig)
				continue
			}
			if away {
				return errAway
			}
			err := server.Unmount()
			if errors.Is(err, unix.EBUSY) {
				s.say("%v: in use; detached, ends with its last user", sig)
				err = fusefs.Detach(s.mountpoint)
				detached = err == nil
			}
			switch {
			case err == nil:
			case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
				select {
				case err := <-served: // somebody was faster
					return err
				case <-time.After(time.Second):
				}
				away = true
				s.say("%v: the mount is not at %s any more, and somewhere else; another signal ends it nevertheless", sig, s.mountpoint)
			default:
				s.say("%v: %v", sig, err)
			}
		}
	}
}

// config translates the options that are the union's.
func (s *service) config() overlay.Config {
	o := s.options
	c := overlay.DefaultConfig()
	c.Lowers, c.DataLowers, c.Upper, c.Work = o.Lowers, o.DataLowers, o.Upper, o.Work
	c.Mountpoint = s.mountpoint
	switch o.Redirect {
	case "on":
		c.Redirect = overlay.On
	case "off", "follow": // follow: marks are read, and none is made
		c.Redirect = overlay.Off
	case "nofollow":
		c.Redirect, c.NoFollow = overlay.Off, true
	}
	if o.Metacopy != nil {
		c.Metacopy = overlay.Off
		if *o.Metacopy {
			c.Metacopy = overlay.On
		}
	}
	switch o.Index {
	case "on":
		c.Index = overlay.On
	case "off":
		c.Index = overlay.Off
	}
	if o.UserXattr {
		c.UserXattr = overlay.On
	}
	c.Volatile = o.Volatile
	c.UIDMap, c.GIDMap = ranges(o.UIDMap), ranges(o.GIDMap)
	if o.SquashUID != nil {
		c.SquashUID = int64(*o.SquashUID)
	}
	if o.SquashGID != nil {
		c.SquashGID = int64(*o.SquashGID)
	}
	c.XattrPermissions = o.XattrPermissions
	c.NoACL = o.NoACL
	c.StaticNlink = o.StaticNlink
	c.NoAtime = o.NoAtime
	c.LowersChange = o.Mode == "shared" // asked for, not only because of grafts
	c.Threshold, c.SettleBudget, c.NoSettle = o.Threshold, o.SettleBudget, o.NoSettle
	c.Log = s.say
	c.Progress = s.progress()
	c.Unwanted = s.discarded
	return c
}

func ranges(in []mountopt.IDRange) []overlay.IDRange {
	var out []overlay.IDRange
	for _, r := range in {
		out = append(out, overlay.IDRange{View: r.View, Host: r.Layer, Count: r.Count})
	}
	return out
}

// progress says how settling goes, every few seconds and at the end of anything that
// took as long.
func (s *service) progress() func(done, total int64) {
	const every = 3 * time.Second
	var last time.Time
	said := false
	return func(done, total int64) {
		now := time.Now()
		if last.IsZero() {
			last = now
		}
		if now.Sub(last) >= every || said && done >= total {
			s.say("completing partly copied files: %d of %d MiB", done>>20, total>>20)
			last, said = now, true
		}
	}
}

// serveOptions translates the options that are the kernel's and the server's.
func (s *service) serveOptions() (fusefs.Options, error) {
	o := s.options
	mode := fusefs.Cached
	if o.Mode != "" {
		var err error
		if mode, err = fusefs.ParseMode(o.Mode); err != nil {
			return fusefs.Options{}, err
		}
	}
	f := fusefs.DefaultOptions(mode)
	if o.Writeback != nil {
		f.Writeback = *o.Writeback
		if f.Writeback && len(o.Grafts) > 0 {
			s.say("writeback=1 has no effect in a mount with binds, volumes or tmpfs")
			f.Writeback = false
		}
	}
	f.ACL = f.ACL && !o.NoACL
	for _, t := range []struct {
		to   *time.Duration
		from *time.Duration
	}{{&f.EntryTimeout, o.EntryTimeout}, {&f.AttrTimeout, o.AttrTimeout}, {&f.NegativeTimeout, o.NegativeTimeout}} {
		if t.from != nil {
			*t.to = *t.from
		}
	}
	f.AllowOther = f.AllowOther || o.AllowOther
	f.ReadOnly = o.ReadOnly
	f.NoSuid, f.NoDev, f.NoExec, f.NoAtime = o.NoSuid, o.NoDev, o.NoExec, o.NoAtime
	if o.Source != "" {
		f.Source = o.Source
	}
	f.Context = strings.Join(o.Context, ",")
	f.Log = s.say
	return f, nil
}
