package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Damage is a record of the store that cannot be understood: cut off, changed by hand, lost with its disk. It concerns
// what it is the record of, and nothing else: whoever lists things goes on without it and tells
// ([Store.OnDamage]), whoever needs just that gets it as an error. What it may use is not removed.
type Damage struct {
	Kind string // image, container or volume; "names" for images/names.json
	Name string // what the commands call it by
	Path string // the file
	Why  error
	Help string // what to do
}

// Error says it in one line.
func (d *Damage) Error() string {
	what := strings.TrimSpace(d.Kind + " " + d.Name)
	why := d.Why.Error()
	if p := (*os.PathError)(nil); errors.As(d.Why, &p) {
		why = p.Err.Error()
	}
	return fmt.Sprintf("%s: %s is damaged (%s): %s", what, d.Path, why, d.Help)
}

// OnDamage sets what is told about records that are left out because they are damaged, once of each. It is to be set
// before the store is used.
func (s *Store) OnDamage(f func(d *Damage)) { s.onDamage = f }

// tell tells about damage that does not stop us.
func (s *Store) tell(list ...*Damage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range list {
		if s.told[d.Path] {
			continue
		}
		if s.told == nil {
			s.told = map[string]bool{}
		}
		if s.told[d.Path] = true; s.onDamage != nil {
			s.onDamage(d)
		}
	}
}

// leftOut tells about err, and reports true, if it is damage.
func (s *Store) leftOut(err error) bool {
	d := damageOf(err)
	if d != nil {
		s.tell(d)
	}
	return d != nil
}

func damageOf(err error) *Damage {
	var d *Damage
	errors.As(err, &d)
	return d
}

// transient are what keeps a good file from being read.
var transient = []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EINTR}

// readRecord is [ReadJSON] for the record of the thing that d says, which must have those fields. What is wrong with the
// file is damage, also that there is none: a thing comes and goes with its record.
func readRecord(d Damage, v any, fields ...string) error {
	b, err := readFile(d.Path)
	if err == nil {
		var has map[string]json.RawMessage
		if err = json.Unmarshal(b, &has); err == nil {
			err = json.Unmarshal(b, v)
		}
		for _, f := range fields {
			if _, ok := has[f]; err == nil && !ok {
				err = fmt.Errorf("it says nothing of %q", f)
			}
		}
	}
	return d.of(err)
}

// of returns d with err for its reason, or what else err is.
func (d Damage) of(err error) error {
	if err == nil || slices.ContainsFunc(transient, func(e error) bool { return errors.Is(err, e) }) {
		return err
	}
	d.Why = err
	return &d
}

// isDir reports whether there is a directory, and no link to one.
func isDir(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.IsDir()
}

func (s *Store) imageDamage(id string, n names, path string) Damage {
	d := Damage{Kind: "image", Name: ShortID(id), Path: path}
	rm := "plyfs image rm "
	switch list := n.of(id); {
	case len(list) > 1:
		rm += "-f "
		fallthrough
	case len(list) > 0:
		d.Kind += " " + list[0]
	}
	d.Help = "load or pull it again, or take it away with " + rm + d.Name
	return d
}

func (s *Store) containerDamage(name, file string) Damage {
	return Damage{Kind: "container", Name: name, Path: s.Path("containers", name, file),
		Help: "plyfs rm " + name + " removes it, with the changes in " + s.Path("containers", name, "upper")}
}

func (s *Store) volumeDamage(name string) Damage {
	return Damage{Kind: "volume", Name: name, Path: s.Path("volumes", name, "volume.json"),
		Help: "plyfs volume create " + name + " writes it anew, plyfs volume rm " + name + " removes it with its data"}
}
