package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Store is one open store. It is safe for use from any goroutine, and beside other processes
// that use the same directory.
type Store struct {
	root     string
	onDamage func(*Damage)

	mu   sync.Mutex
	told map[string]bool // guarded by mu: paths that onDamage was called with
}

// RootVariable names the store's directory where no flag does.
const RootVariable = "PLYFS_ROOT"

// DefaultRoot returns the directory of the store if the user names none: $PLYFS_ROOT,
// /var/lib/plyfs as root of the machine, and plyfs in the XDG data directory for an
// ordinary user, in a user namespace or not (rootless).
func DefaultRoot(rootless bool) (string, error) {
	if dir := os.Getenv(RootVariable); dir != "" {
		return filepath.Abs(dir)
	}
	if !rootless {
		return "/var/lib/plyfs", nil
	}
	// The specification says that a relative path there is to be ignored.
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "plyfs"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("where to keep images: %w; set $%s or use --root", err, RootVariable)
	}
	return filepath.Join(home, ".local/share/plyfs"), nil
}

const readme = `This directory belongs to plyfs, which keeps images, containers and volumes in it.

images/      names.json says which name means which image; each image has its config
layers/      the unpacked layers of the images: look, but do not change anything
containers/  each container's writable layer and its record
volumes/     volumes; the data is in there as it is
staging/     things being made or removed; emptied by the next plyfs command

"plyfs image ls", "plyfs ps -a" and "plyfs volume ls" list it; "plyfs image rm" and the
like take things away.
`

// dirs are made with the store.
var dirs = []string{"images", "layers", "containers", "volumes", "staging"}

// Open opens the store in the directory root, makes it if there is none, and removes
// what commands that were killed left behind.
func Open(root string) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	s := &Store{root: root}
	// Layers contain set-id programs and other people's secrets: nobody else may enter.
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	for _, d := range dirs {
		if err := os.Mkdir(s.Path(d), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	if _, err := os.Lstat(s.Path("README")); errors.Is(err, os.ErrNotExist) {
		err := s.Update(func() error { return WriteFile(s.Path("README"), []byte(readme), 0o644) })
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	s.sweep()
	return s, nil
}

// Exists reports whether there is a store in the directory root. Commands that only
// look ask first, so as not to make one.
func Exists(root string) bool {
	st, err := os.Stat(filepath.Join(root, "images"))
	return err == nil && st.IsDir()
}

// Root returns the directory of the store, absolute.
func (s *Store) Root() string { return s.root }

// Path returns a path in the store's directory.
func (s *Store) Path(elem ...string) string {
	return filepath.Join(append([]string{s.root}, elem...)...)
}

// View runs f while nobody changes records. It may be nested in itself, but not in
// [Store.Update], nor that in it.
func (s *Store) View(f func() error) error { return s.locked(unix.LOCK_SH, f) }

// Update runs f, which may change records, while nobody else reads or changes them. f
// must be short: every other command waits for it.
func (s *Store) Update(f func() error) error { return s.locked(unix.LOCK_EX, f) }

func (s *Store) locked(how int, f func() error) error {
	// Every use opens the file anew, because a lock belongs to what open returned:
	// goroutines exclude each other as processes do.
	fd, err := unix.Open(s.Path("lock"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err == unix.EROFS && how == unix.LOCK_SH { // a store on a medium, or another's: there is much to read
		fd, err = unix.Open(s.Path("lock"), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: s.Path("lock"), Err: err}
	}
	defer unix.Close(fd)
	if err := flock(fd, how); err != nil {
		return &os.PathError{Op: "lock", Path: s.Path("lock"), Err: err}
	}
	return f()
}

func flock(fd, how int) error {
	for {
		if err := unix.Flock(fd, how); err != unix.EINTR {
			return err
		}
	}
}
