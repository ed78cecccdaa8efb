package store

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/plyfs/plyfs/layer/store/naming"
)

// Container is a stack with a name and a life: an image, a writable layer of its own, what
// is mounted into it, and a command.
//
//	containers/NAME/
//	  container.json   the record; written once
//	  state.json       what the last run came to (container_state.go)
//	  lock             held by the daemon while it runs
//	  upper/ work/     the writable layer
//	  merged/          where the view is mounted
//	  etc/             resolv.conf, hosts and hostname as the container sees them
//	  empty/           mount points that the image does not have
//	  nothing/         stands for the layers of an image without any
//	  control          the daemon's socket
//	  output           what a detached run printed
//	  log              messages of the daemon
type Container struct {
	ID        string    `json:"id"` // 64 hexadecimal digits
	Name      string    `json:"name"`
	Image     string    `json:"image"`      // the image's id
	ImageName string    `json:"image_name"` // what the user called it
	Created   time.Time `json:"created"`

	Args       []string          `json:"args"` // entrypoint and command
	Env        []string          `json:"env"`
	Dir        string            `json:"dir,omitempty"`
	User       string            `json:"user,omitempty"`
	Hostname   string            `json:"hostname"`
	Terminal   bool              `json:"terminal,omitempty"`
	Stdin      bool              `json:"stdin,omitempty"`
	StopSignal string            `json:"stop_signal,omitempty"`
	ReadOnly   bool              `json:"read_only,omitempty"`
	AutoRemove bool              `json:"auto_remove,omitempty"`
	Runtime    string            `json:"runtime,omitempty"` // "" is plyfs itself
	Labels     map[string]string `json:"labels,omitempty"`
	Mounts     []Mount           `json:"mounts"` // by target

	made []string // volumes that were made with it; of what CreateContainer has just returned
}

// What a [Mount] shows.
const (
	BindMount   = "bind"   // a directory or file of the host
	VolumeMount = "volume" // a volume of the store
	TmpfsMount  = "tmpfs"  // an empty place in memory
)

// Mount is one thing that is mounted into a container.
type Mount struct {
	Type   string `json:"type"`
	Source string `json:"source,omitempty"` // absolute path of the host; name of the volume
	Target string `json:"target"`           // absolute and clean, in the view

	ReadOnly bool `json:"read_only,omitempty"`
	// NoCopy: a new volume stays empty.
	NoCopy bool `json:"no_copy,omitempty"`
	// Anonymous: the volume was made for this mount, and goes with the last container.
	Anonymous bool `json:"anonymous,omitempty"`

	Size int64  `json:"size,omitempty"` // tmpfs: bytes; 0 is the kernel's choice
	Mode uint32 `json:"mode,omitempty"` // tmpfs
	UID  uint32 `json:"uid,omitempty"`  // tmpfs
	GID  uint32 `json:"gid,omitempty"`  // tmpfs
}

// VolumesFrom asks for the volumes and binds of another container.
type VolumesFrom struct {
	Container string
	ReadOnly  bool
}

// CreateContainer makes a container from c, whose ID, Image and Created it fills in, and the volumes that it needs:
// those named in its mounts, and an anonymous one for each VOLUME of the image at whose place nothing else is
// mounted. An empty name gets a made up one. ImageName is looked up. complete is called with the
// image, to fill in what depends on it; it must be quick. The mounts are then in the order of precedence, those that c
// had before first, and complete may take away some of the others.
func (s *Store) CreateContainer(c *Container, from []VolumesFrom, complete func(*Container, *Image) error) (err error) {
	defer func() { err = s.Explain(err) }()
	if c.Name != "" {
		if err := naming.Check("container", c.Name); err != nil {
			return err
		}
	}
	stage, err := s.Stage("container")
	if err != nil {
		return err
	}
	defer stage.Close()
	dir := stage.Dir + "/it"
	for _, d := range []string{"", "/upper", "/work", "/merged", "/etc"} {
		if err := os.Mkdir(dir+d, 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(dir+"/lock", nil, 0o600); err != nil {
		return err
	}
	return s.Update(func() error {
		img, err := s.lookup(c.ImageName)
		if err != nil {
			return err
		}
		if err := s.nameContainer(c); err != nil {
			return err
		}
		c.ID, c.Image, c.Created = newID(), img.ID, time.Now().UTC().Truncate(time.Second)
		if err := s.gatherMounts(c, from, img); err != nil {
			return err
		}
		if err := complete(c, img); err != nil {
			return err
		}
		sort.Slice(c.Mounts, func(i, j int) bool { return c.Mounts[i].Target < c.Mounts[j].Target })
		c.made, err = s.makeVolumes(c)
		if err == nil {
			err = copyRootAttributes(img, dir+"/upper")
		}
		if err == nil {
			err = WriteJSON(dir+"/container.json", c)
		}
		if err == nil {
			err = Rename(dir, s.Path("containers", c.Name))
		}
		if err != nil {
			undone := &bin{s: s, stage: stage}
			for _, name := range c.made {
				_ = s.moveVolume(name, undone)
			}
		}
		return err
	})
}

// UndoCreate takes away a container that was just made, and never started, with the volumes that
// were made for it and that nobody else has come to use.
func (s *Store) UndoCreate(c *Container) error {
	release, err := s.LockContainer(c)
	if err != nil {
		return err
	}
	defer release()
	err = s.RemoveLocked(c, true)
	for _, name := range c.made {
		_ = s.RemoveVolume(name, true) // or it is in use
	}
	return err
}

// nameContainer checks that the name is free, or finds one.
func (s *Store) nameContainer(c *Container) error {
	taken := func(name string) bool {
		_, err := os.Lstat(s.Path("containers", name))
		return err == nil
	}
	if c.Name != "" {
		if taken(c.Name) {
			return fmt.Errorf("there is a container %s already: plyfs rm %s removes it", c.Name, c.Name)
		}
		return nil
	}
	for try := 0; ; try++ {
		if name := madeUpName(try); !taken(name) {
			c.Name = name
			return nil
		}
	}
}

// gatherMounts adds to the mounts of c those of other containers, and the image's VOLUMEs. What was
// asked for by its target comes before what comes along, and the last of the containers before the others, as with Docker.
func (s *Store) gatherMounts(c *Container, from []VolumesFrom, img *Image) error {
	at := map[string]bool{}
	c.Mounts = append([]Mount{}, c.Mounts...) // none is no null
	for _, m := range c.Mounts {
		if at[m.Target] {
			return fmt.Errorf("two mounts at %s", m.Target)
		}
		at[m.Target] = true
	}
	for _, f := range slices.Backward(from) {
		other, err := s.container(f.Container)
		if err != nil {
			return fmt.Errorf("volumes from: %w", err)
		}
		for _, m := range other.Mounts {
			if at[m.Target] || m.Type == TmpfsMount {
				continue
			}
			at[m.Target] = true
			m.ReadOnly = m.ReadOnly || f.ReadOnly
			m.NoCopy = true
			c.Mounts = append(c.Mounts, m)
		}
	}
	rest := len(c.Mounts)
	for target := range img.Config.Volumes {
		if strings.IndexByte(target, 0) >= 0 {
			return fmt.Errorf("image %s: its VOLUME %q is no path", img.Name(), target)
		}
		if target = path.Clean("/" + target); !at[target] { // from the root, as Docker takes it
			at[target] = true
			c.Mounts = append(c.Mounts, Mount{Type: VolumeMount, Target: target})
		}
	}
	slices.SortFunc(c.Mounts[rest:], func(a, b Mount) int { return strings.Compare(a.Target, b.Target) })
	return nil
}

// makeVolumes makes the volumes of c that do not exist, and returns their names.
func (s *Store) makeVolumes(c *Container) (made []string, err error) {
	for i := range c.Mounts {
		m := &c.Mounts[i]
		if m.Type != VolumeMount {
			continue
		}
		anonymous := m.Source == ""
		v, created, err := s.createVolume(m.Source, nil)
		if err != nil {
			return made, err
		}
		m.Source = v.Name
		m.Anonymous = m.Anonymous || anonymous
		if created {
			made = append(made, v.Name)
		}
	}
	return made, nil
}

// copyRootAttributes gives the upper the attributes of the image's root directory: a merged
// directory shows those of its topmost layer.
func copyRootAttributes(img *Image, upper string) error {
	if dirs := img.LayerDirs(); len(dirs) > 0 {
		return copyAttributes(dirs[0], upper)
	}
	return nil
}

// Container returns the container that ref means: a name, an id, or the beginning of one (four digits at
// least). If there is none, the error matches [ErrNotFound].
func (s *Store) Container(ref string) (c *Container, err error) {
	err = s.View(func() error {
		c, err = s.container(ref)
		return err
	})
	return c, err
}

// Containers returns all containers, the newest first.
func (s *Store) Containers() (all []*Container, err error) {
	err = s.View(func() error {
		var damaged []*Damage
		all, damaged, err = s.containerRecords()
		s.tell(damaged...)
		return err
	})
	sort.SliceStable(all, func(i, j int) bool { return all[i].Created.After(all[j].Created) })
	return all, err
}

// ContainerToRemove is Container for whoever will remove it. Of one whose record is damaged the name is all that is known.
func (s *Store) ContainerToRemove(ref string) (*Container, error) {
	c, err := s.Container(ref)
	if d := damageOf(err); d != nil {
		return &Container{Name: d.Name}, nil
	}
	return c, err
}

// ContainerPath returns the directory of a container, or a path in it.
func (s *Store) ContainerPath(c *Container, elem ...string) string {
	return s.Path(append([]string{"containers", c.Name}, elem...)...)
}

// container is Container for those who hold the lock.
func (s *Store) container(ref string) (*Container, error) {
	if naming.Check("container", ref) == nil {
		c, err := s.readContainer(ref)
		if !errors.Is(err, os.ErrNotExist) {
			return c, err
		}
	}
	if prefixForm().MatchString(ref) {
		all, damaged, err := s.containerRecords()
		if err != nil {
			return nil, err
		}
		s.tell(damaged...)
		var found []*Container
		for _, c := range all {
			if strings.HasPrefix(c.ID, ref) {
				found = append(found, c)
			}
		}
		if len(found) > 1 {
			return nil, fmt.Errorf("%d containers have ids that begin with %s: give more of it", len(found), ref)
		}
		if len(found) == 1 {
			return found[0], nil
		}
	}
	return nil, fmt.Errorf("no container %s (plyfs ps -a lists them): %w", ref, ErrNotFound)
}

// readContainer reads a record. What is wrong with it is a [Damage]; if there is no such container the error matches
// os.ErrNotExist.
func (s *Store) readContainer(name string) (*Container, error) {
	if !isDir(s.Path("containers", name)) {
		return nil, &os.PathError{Op: "open", Path: s.Path("containers", name), Err: os.ErrNotExist}
	}
	damage := s.containerDamage(name, "container.json")
	var c Container
	if err := readRecord(damage, &c, "id", "image", "args", "mounts"); err != nil {
		return nil, err
	}
	if !isID(c.Image) || !idForm().MatchString(c.ID) {
		return nil, damage.of(errors.New("its ids are none"))
	}
	c.Name = name // a directory that somebody renamed
	return &c, nil
}

// containerRecords returns the containers, and what is known of those whose records cannot be read.
func (s *Store) containerRecords() ([]*Container, []*Damage, error) {
	entries, err := os.ReadDir(s.Path("containers"))
	if err != nil {
		return nil, nil, err
	}
	all := []*Container{}
	var damaged []*Damage
	for _, e := range entries {
		c, err := s.readContainer(e.Name())
		d := damageOf(err)
		switch {
		case d != nil:
			damaged = append(damaged, d)
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return nil, nil, err
		default:
			all = append(all, c)
		}
	}
	return all, damaged, nil
}
