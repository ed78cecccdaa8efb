package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer/store/naming"
)

// Volume is a directory with a name, which outlives the containers that use it.
//
//	volumes/NAME/
//	  volume.json   the record
//	  data/         what the containers see
//	  fill/         a copy of an image's directory being made (see volume_fill.go)
//	  times         the times of that directory
//	  ready/        that copy when it is whole, on its way into data/
//	  mounted       locked, shared, by mounts without a container
//
// volumes/NAME itself is locked (flock) by whoever fills the volume.
type Volume struct {
	Name      string            `json:"name"`
	Created   time.Time         `json:"created"`
	Labels    map[string]string `json:"labels,omitempty"`
	Anonymous bool              `json:"anonymous"`
	// Filled: it got an image's files, or was found with others in it. It is never filled
	// again, even when it is empty.
	Filled bool `json:"filled"`

	// Dir is the directory with the data.
	Dir string `json:"dir"`
	// Users are the containers that use it, sorted.
	Users []string `json:"users"`
}

// volumeRecord is volumes/NAME/volume.json.
type volumeRecord struct {
	Created   time.Time         `json:"created"`
	Labels    map[string]string `json:"labels,omitempty"`
	Anonymous bool              `json:"anonymous,omitempty"`
	Filled    bool              `json:"filled,omitempty"`
	// Shaped: it got the owner, the mode and the attributes of a directory of an image that was empty.
	Shaped bool `json:"shaped,omitempty"`
}

// newID returns 64 random hexadecimal digits.
func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// CreateVolume makes a volume; with an empty name an anonymous one. One that exists is
// returned as it is, with created false; if its record is damaged it gets a new one.
func (s *Store) CreateVolume(name string, labels map[string]string) (v *Volume, created bool, err error) {
	err = s.Update(func() error {
		v, created, err = s.createVolume(name, labels)
		if damageOf(err) != nil {
			v, err = s.mendVolume(name, labels)
		}
		return err
	})
	return v, created, s.Explain(err)
}

// mendVolume writes the record of a volume anew. That it is filled is more likely than not, and filling one that was
// emptied would be wrong; one whose filling was interrupted still has to be.
func (s *Store) mendVolume(name string, labels map[string]string) (*Volume, error) {
	path := s.Path("volumes", name)
	held, err := lockDir(path, unix.LOCK_EX|unix.LOCK_NB) // as whoever fills it
	if err == unix.EWOULDBLOCK {
		return nil, fmt.Errorf("volume %s is just being filled", name)
	}
	if err != nil {
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	defer unix.Close(held)
	rec := volumeRecord{Created: time.Now().UTC().Truncate(time.Second), Labels: labels, Anonymous: idForm().MatchString(name), Filled: !isDir(path + "/ready")}
	if err := os.Mkdir(path+"/data", 0o755); err == nil {
		rec.Filled = false
	} else if !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	removeStale(path)
	if err := WriteJSON(path+"/volume.json", &rec); err != nil {
		return nil, err
	}
	return s.volume(name)
}

// createVolume is CreateVolume for those who hold the lock.
func (s *Store) createVolume(name string, labels map[string]string) (*Volume, bool, error) {
	rec := volumeRecord{Created: time.Now().UTC().Truncate(time.Second), Labels: labels}
	if name == "" {
		name, rec.Anonymous = newID(), true
	} else if err := naming.Check("volume", name); err != nil {
		return nil, false, err
	} else if v, err := s.volume(name); !errors.Is(err, ErrNotFound) {
		return v, false, err
	}
	stage, err := s.Stage("volume")
	if err != nil {
		return nil, false, err
	}
	defer stage.Close()
	dir := stage.Dir + "/it"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, false, err
	}
	if err := os.Mkdir(dir+"/data", 0o755); err != nil {
		return nil, false, err
	}
	if err := WriteJSON(dir+"/volume.json", &rec); err != nil {
		return nil, false, err
	}
	if err := Rename(dir, s.Path("volumes", name)); err != nil {
		return nil, false, err
	}
	v, err := s.volume(name)
	return v, err == nil, err
}

// Volume returns the volume of that name. If there is none, the error matches [ErrNotFound].
func (s *Store) Volume(name string) (v *Volume, err error) {
	err = s.View(func() error {
		if v, err = s.volume(name); err != nil {
			return err
		}
		users, unknown, err := s.volumeUsers()
		s.tell(unknown...)
		v.Users = append(v.Users, users[name]...)
		return err
	})
	return v, err
}

// Volumes returns all volumes by name, the anonymous ones last.
func (s *Store) Volumes() (all []*Volume, err error) {
	err = s.View(func() error {
		var unknown []*Damage
		all, unknown, err = s.volumes()
		s.tell(unknown...)
		return err
	})
	return all, err
}

// volumes returns those whose records can be read, and tells about the others; unknown are containers that may use any.
func (s *Store) volumes() (all []*Volume, unknown []*Damage, err error) {
	users, unknown, err := s.volumeUsers()
	if err != nil {
		return nil, nil, err
	}
	entries, err := os.ReadDir(s.Path("volumes"))
	if err != nil {
		return nil, nil, err
	}
	all = []*Volume{}
	for _, e := range entries {
		v, err := s.volume(e.Name())
		if errors.Is(err, ErrNotFound) || s.leftOut(err) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		v.Users = append(v.Users, users[v.Name]...)
		all = append(all, v)
	}
	sort.SliceStable(all, func(i, j int) bool { return !all[i].Anonymous && all[j].Anonymous })
	return all, unknown, nil
}

// volume reads a record, without the users.
func (s *Store) volume(name string) (*Volume, error) {
	if naming.Check("volume", name) != nil {
		return nil, fmt.Errorf("no volume %q: %w", name, ErrNotFound)
	}
	if !isDir(s.Path("volumes", name)) {
		return nil, fmt.Errorf("no volume %s (plyfs volume ls lists them): %w", name, ErrNotFound)
	}
	var rec volumeRecord
	if err := readRecord(s.volumeDamage(name), &rec, "created"); err != nil {
		return nil, err
	}
	return &Volume{Name: name, Created: rec.Created, Labels: rec.Labels, Anonymous: rec.Anonymous, Filled: rec.Filled,
		Dir: s.Path("volumes", name, "data"), Users: []string{}}, nil
}

// RemoveVolume removes a volume and its data. One that a container uses stays: that
// is an error with the names of the containers. With force, one that does not exist
// is no error.
func (s *Store) RemoveVolume(name string, force bool) error {
	removed, err := s.newBin()
	if err != nil {
		return err
	}
	defer removed.Close()
	err = s.Update(func() error {
		if _, err := s.volume(name); err != nil && damageOf(err) == nil {
			return err
		}
		users, unknown, err := s.volumeUsers()
		if err != nil {
			return err
		}
		if u := users[name]; len(u) > 0 {
			return fmt.Errorf("volume %s is in use by %s: remove the containers first", name, strings.Join(u, ", "))
		}
		if len(unknown) > 0 {
			return fmt.Errorf("volume %s may be in use: %w", name, unknown[0])
		}
		return s.moveVolume(name, removed)
	})
	if force && errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return removed.Close()
}

// HoldVolume keeps a volume from being removed until release is called or the process ends.
func (s *Store) HoldVolume(name string) (release func(), err error) {
	err = s.View(func() error {
		if _, err := s.volume(name); err != nil {
			return err
		}
		path := s.Path("volumes", name, "mounted")
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
		if err == nil {
			err = flock(fd, unix.LOCK_SH)
		}
		if err != nil {
			return &os.PathError{Op: "lock", Path: path, Err: err}
		}
		release = func() { unix.Close(fd) }
		return nil
	})
	return release, err
}

// moveVolume takes a volume out of sight, into a bin. The caller holds the lock, and knows
// that nobody uses it.
func (s *Store) moveVolume(name string, to *bin) error {
	path := s.Path("volumes", name)
	held, err := lockDir(path, unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return fmt.Errorf("volume %s is just being filled", name)
	}
	if err != nil {
		return &os.PathError{Op: "lock", Path: path, Err: err}
	}
	defer unix.Close(held)
	if fd, err := unix.Open(path+"/mounted", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err == nil {
		defer unix.Close(fd)
		if flock(fd, unix.LOCK_EX|unix.LOCK_NB) == unix.EWOULDBLOCK {
			return fmt.Errorf("volume %s is mounted (plyfs mount): unmount it first", name)
		}
	}
	return to.take(path)
}

// lockDir opens a directory and locks it. Errors are errnos.
func lockDir(path string, how int) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	if err := flock(fd, how); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if !same(fd, path) { // removed while we waited
		unix.Close(fd)
		return -1, unix.ENOENT
	}
	return fd, nil
}

// PruneVolumes removes the anonymous volumes that no container uses, with all the named ones
// too, and returns the names of those it removed. What a damaged record may use stays, and so do volumes whose own is.
func (s *Store) PruneVolumes(all bool) ([]string, error) {
	gone, err := s.newBin()
	if err != nil {
		return nil, err
	}
	defer gone.Close()
	removed := []string{}
	err = s.Update(func() error {
		list, unknown, err := s.volumes()
		if err != nil {
			return err
		}
		if len(unknown) > 0 { // a container that may use any of them
			s.tell(unknown...)
			return nil
		}
		var errs []error
		for _, v := range list {
			if len(v.Users) > 0 || !v.Anonymous && !all {
				continue
			}
			if err := s.moveVolume(v.Name, gone); err != nil {
				errs = append(errs, err)
				continue
			}
			removed = append(removed, v.Name)
		}
		return errors.Join(errs...)
	})
	return removed, errors.Join(err, gone.Close())
}
