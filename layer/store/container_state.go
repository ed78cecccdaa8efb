package store

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// State is how a container is. What is written down is only believed as far as the
// daemon's lock confirms it.
type State struct {
	Status   Status     `json:"status"`
	Daemon   int        `json:"daemon,omitempty"` // process that serves the view, while running
	PID      int        `json:"pid,omitempty"`    // process 1 of the container, while running
	Started  *time.Time `json:"started,omitempty"`
	Finished *time.Time `json:"finished,omitempty"`
	ExitCode int        `json:"exit_code"` // once exited
	Error    string     `json:"error,omitempty"`
	// Mountpoint is where the view is, while it is only mounted.
	Mountpoint string `json:"mountpoint,omitempty"`
}

// Status is what a container does.
type Status string

// The values of Status.
const (
	Created  Status = "created"  // it never ran
	Starting Status = "starting" // a daemon is there, the command not yet
	Running  Status = "running"
	Stopping Status = "stopping" // the command has ended, the daemon is tidying up
	Mounted  Status = "mounted"  // a daemon shows the view (plyfs mount --container), and runs nothing
	Exited   Status = "exited"
	Killed   Status = "killed" // its daemon died; start mends that
)

// Live reports whether a daemon is in charge.
func (s Status) Live() bool { return s == Starting || s == Running || s == Stopping || s == Mounted }

// ErrRunning is matched by the errors of what cannot be done to a running container.
var ErrRunning = errors.New("running")

// State returns how a container is.
func (s *Store) State(c *Container) (*State, error) {
	held, err := s.daemonAlive(c)
	if err != nil {
		return nil, err
	}
	st, err := s.readState(c)
	switch {
	case errors.Is(err, os.ErrNotExist):
		st.Status = Created
		if held {
			st.Status = Starting
		}
	case s.leftOut(err):
		// The next run writes it anew.
		st = State{Status: Exited, ExitCode: 128 + int(unix.SIGKILL), Error: err.Error()}
		if held {
			st = State{Status: Running, Error: err.Error()}
		}
	case err != nil:
		return nil, err
	case held && !st.Status.Live():
		// A new daemon has not written anything yet.
		st = State{Status: Starting, Started: st.Started}
	case !held && st.Status.Live():
		// Ended between the two looks, or killed: read again what it wrote last.
		if again, err := s.readState(c); err == nil {
			st = again
		}
		if st.Status.Live() {
			st = State{Status: Killed, Started: st.Started, PID: st.PID, ExitCode: 128 + int(unix.SIGKILL), Error: "its daemon was killed"}
		}
	}
	return &st, nil
}

func (s *Store) readState(c *Container) (State, error) {
	var st State
	damage := s.containerDamage(c.Name, "state.json")
	damage.Help = "how it ended is not known; the next start writes it anew"
	if _, err := os.Lstat(damage.Path); errors.Is(err, os.ErrNotExist) {
		return st, err
	}
	return st, readRecord(damage, &st, "status")
}

// SetState writes down how a container is. For the daemon alone, which holds the lock.
func (s *Store) SetState(c *Container, st *State) error {
	path := s.ContainerPath(c, "state.json")
	err := WriteJSON(path, st)
	if noRoom(err) && overwriteJSON(path, st) == nil {
		return nil
	}
	return err
}

// daemonAlive asks for the lock without taking it, so as not to be in the way of a daemon
// that starts.
func (s *Store) daemonAlive(c *Container) (bool, error) {
	path := s.ContainerPath(c, "lock")
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err == unix.ENOENT {
		if isDir(s.ContainerPath(c)) {
			return false, nil // lost
		}
		return false, fmt.Errorf("no container %s: %w", c.Name, ErrNotFound)
	}
	if err != nil {
		return false, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &lock); err != nil {
		return false, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return lock.Type != unix.F_UNLCK, nil
}

// MountedError is the error of whoever needs a container that is mounted.
func (st *State) MountedError(c *Container) error {
	return fmt.Errorf("container %s is mounted: plyfs umount %s ends that", c.Name, st.Mountpoint)
}

// LockContainer takes the lock of a container's daemon; it is held until release is called
// or the process ends. If another one has it, the error matches [ErrRunning], or is that of
// [State.MountedError] for a container that is mounted.
func (s *Store) LockContainer(c *Container) (release func(), err error) {
	path := s.ContainerPath(c, "lock")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600) // it may be lost
	if err == unix.ENOENT {
		return nil, fmt.Errorf("no container %s: %w", c.Name, ErrNotFound)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	// Not flock(2): that lock cannot be asked about without taking it.
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lock)
	switch {
	case err == unix.EAGAIN || err == unix.EACCES:
		unix.Close(fd)
		if st, err := s.State(c); err == nil && st.Status == Mounted {
			return nil, st.MountedError(c)
		}
		return nil, fmt.Errorf("container %s is %w", c.Name, ErrRunning)
	case err != nil:
		unix.Close(fd)
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	case !same(fd, path):
		unix.Close(fd)
		return nil, fmt.Errorf("no container %s: %w", c.Name, ErrNotFound)
	}
	return func() { unix.Close(fd) }, nil
}

// RemoveLocked removes a container and its writable layer, with volumes also the anonymous
// volumes that no other container uses. The caller holds the container's lock.
func (s *Store) RemoveLocked(c *Container, volumes bool) error {
	removed, err := s.newBin()
	if err != nil {
		return err
	}
	defer removed.Close()
	err = s.Update(func() error {
		if err := removed.take(s.ContainerPath(c)); err != nil {
			return err
		}
		if !volumes {
			return nil
		}
		return s.dropAnonymous(c, removed)
	})
	return errors.Join(err, removed.Close())
}

// dropAnonymous takes away the anonymous volumes of c, which is gone already, that have no other users.
func (s *Store) dropAnonymous(c *Container, to *bin) error {
	users, unknown, err := s.volumeUsers()
	if err != nil {
		return err
	}
	if len(unknown) > 0 { // they may use it, and prune will find it
		s.tell(unknown...)
		return nil
	}
	var errs []error
	for _, m := range c.Mounts {
		if m.Type != VolumeMount || !m.Anonymous || len(users[m.Source]) > 0 {
			continue
		}
		if err := s.moveVolume(m.Source, to); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
