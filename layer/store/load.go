package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/store/userns"
	"github.com/plyfs/plyfs/whiteout"
)

// Progress is told how a load goes on. It is called from one goroutine at a time.
type Progress interface {
	// Layer begins with layer n of total; size is that of what is read, in bytes, or -1.
	Layer(n, total int, id string, size int64)
	// Read says that so many more bytes were read.
	Read(n int)
	// Done ends the layer. had says that it was in the store before.
	Done(had bool)
}

// AddOptions say how an image is added.
type AddOptions struct {
	Names    []string // the names it gets, besides those that it has
	Source   string   // where it comes from, for the record
	Progress Progress // may be nil
}

// Add brings an image into the store: its layers are unpacked, unless they are there, and
// checked, and only then is it there. After an error the store is as it was.
func (s *Store) Add(ctx context.Context, in *image.Image, o AddOptions) (*Image, error) {
	var full []string
	for _, n := range o.Names {
		f, err := ParseReference(n)
		if err != nil {
			return nil, err
		}
		if _, digest := splitName(f); digest != "" && !slices.Contains(in.Digests, digest) {
			return nil, fmt.Errorf("%s: the image has another digest", n)
		}
		full = append(full, f)
	}
	if in.Config != nil {
		c, err := parseConfig(in.Config)
		if err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		if len(c.RootFS.DiffIDs) != len(in.Layers) {
			return nil, fmt.Errorf("configuration: %d diff ids for %d layers", len(c.RootFS.DiffIDs), len(in.Layers))
		}
	}
	if len(full) > 0 { // said before anything is unpacked
		if err := s.View(func() error { _, err := s.readNames(); return err }); err != nil {
			return nil, err
		}
	}
	a := &adder{s: s, ns: s.namespace(), progress: o.Progress}
	defer a.release()
	img, err := a.add(ctx, in, full, o.Source)
	if err != nil {
		a.release()
		a.undo()
		return nil, s.Explain(err)
	}
	return img, nil
}

// Explain adds to an error what the user can do about it.
func (s *Store) Explain(err error) error {
	if noRoom(err) {
		return fmt.Errorf("%w (the store is in %s; plyfs image prune makes room)", err, s.root)
	}
	return err
}

// namespace returns where marks are kept by who uses this store.
func (s *Store) namespace() whiteout.Namespace {
	stage, err := s.Stage("probe")
	if err != nil {
		return whiteout.Trusted // the next attempt says why
	}
	defer stage.Close()
	if layer.Setxattr(stage.FD(), "", whiteout.Trusted.Name("probe"), []byte("y"), 0) == nil {
		return whiteout.Trusted
	}
	return whiteout.User
}

// adder is one Add.
type adder struct {
	s        *Store
	ns       whiteout.Namespace
	progress Progress
	held     []func()
	made     []string // layers that were not there before
}

func (a *adder) release() {
	for _, f := range a.held {
		f()
	}
	a.held = nil
}

// undo removes the layers that this Add made, unless somebody uses them by now.
func (a *adder) undo() {
	if len(a.made) == 0 {
		return
	}
	only := map[string]bool{}
	for _, name := range a.made {
		only[name] = true
	}
	_, _ = a.s.remove(func(r *remover) error { r.only = only; return nil })
}

func (a *adder) add(ctx context.Context, in *image.Image, full []string, source string) (*Image, error) {
	var dirs []string // of the layers so far, topmost first
	rec := imageRecord{Loaded: time.Now().UTC().Round(time.Second), Source: source, Manifest: in.Manifest, Digests: in.Digests, Layers: []string{}}
	var ids []string
	for i, l := range in.Layers {
		if a.progress != nil {
			a.progress.Layer(i+1, len(in.Layers), l.DiffID, l.Size)
		}
		name, had, err := a.layer(ctx, l, dirs)
		if err != nil {
			return nil, fmt.Errorf("layer %d of %d: %w", i+1, len(in.Layers), err)
		}
		if a.progress != nil {
			a.progress.Done(had)
		}
		rec.Layers = append([]string{name}, rec.Layers...)
		dirs = append([]string{a.s.Path("layers", name, "tree")}, dirs...)
		hex, _, _ := strings.Cut(name, ".")
		ids = append(ids, digestPrefix+hex)
	}
	config := in.Config
	if config == nil {
		var err error
		if config, err = image.PlainConfig(ids, in.Created, in.Platform); err != nil {
			return nil, err
		}
	}
	return a.record(config, &rec, full)
}

// layer makes sure that a layer is there, over those in below, and holds it.
func (a *adder) layer(ctx context.Context, l *image.Layer, below []string) (name string, had bool, err error) {
	if l.DiffID != "" {
		name, err := a.find(strings.TrimPrefix(l.DiffID, digestPrefix), below)
		if name != "" || err != nil {
			return name, true, err
		}
	}
	stage, err := a.s.Stage("layer")
	if err != nil {
		return "", false, err
	}
	defer stage.Close()
	hex, err := a.unpack(ctx, l, stage, below)
	if err != nil {
		return "", false, err
	}
	if name, err := a.find(hex, below); name != "" || err != nil {
		return name, true, err // it was there, or somebody was faster
	}
	// Held before it has its name, it cannot be removed in between.
	fd, err := unix.Open(stage.Dir+"/layer", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", false, err
	}
	if err := flock(fd, unix.LOCK_SH); err != nil {
		unix.Close(fd)
		return "", false, err
	}
	a.held = append(a.held, func() { unix.Close(fd) })
	for n := 0; ; n++ {
		if name = hex; n > 0 {
			name += "." + strconv.Itoa(n)
		}
		err := a.s.Update(func() error { return Rename(stage.Dir+"/layer", a.s.Path("layers", name)) })
		if err == nil {
			a.made = append(a.made, name)
			return name, false, nil
		}
		if !errors.Is(err, os.ErrExist) {
			return "", false, err
		}
		// Somebody else's has just come: take it, if it is the same.
		if there, err := a.match(name, below); err != nil {
			return "", false, err
		} else if there {
			return name, true, nil
		}
	}
}

// find returns the name of the directory that has the layer, held; "" if there is none.
func (a *adder) find(hex string, below []string) (string, error) {
	for n := 0; ; n++ {
		name := hex
		if n > 0 {
			name += "." + strconv.Itoa(n)
		}
		if _, err := os.Lstat(a.s.Path("layers", name)); errors.Is(err, os.ErrNotExist) {
			if n == 0 {
				continue // the first may be gone, and the second not
			}
			return "", nil
		}
		ok, err := a.match(name, below)
		if err != nil {
			return "", err
		}
		if ok {
			return name, nil
		}
	}
}

// match reports whether the layer in that directory would be unpacked the same way over
// those below. It is held then.
func (a *adder) match(name string, below []string) (bool, error) {
	release, ok, err := a.s.holdLayer(name)
	if !ok || err != nil {
		return false, err
	}
	rec, err := a.s.readLayerRecord(name)
	if err != nil {
		release()
		if damageOf(err) != nil { // another will be made beside it
			return false, nil
		}
		return false, err
	}
	look := image.Below(below, a.ns)
	for p, had := range rec.Implied {
		m, found := look(p)
		if !found {
			m = image.PlainDir
		}
		if !reflect.DeepEqual(m, had) {
			release()
			return false, nil
		}
	}
	a.held = append(a.held, release)
	return true, nil
}

// unpack makes stage/layer, complete and on disk, and returns the digest.
func (a *adder) unpack(ctx context.Context, l *image.Layer, stage *Stage, below []string) (hex string, err error) {
	dir := filepath.Join(stage.Dir, "layer")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	if err := os.Mkdir(dir+"/tree", 0o755); err != nil {
		return "", err
	}
	if err := os.Chmod(dir+"/tree", 0o755); err != nil { // whatever the umask says
		return "", err
	}
	root, err := unix.Open(dir+"/tree", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(root)
	recipe, err := os.OpenFile(dir+"/recipe.gz", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	defer recipe.Close()
	var count func(int)
	if a.progress != nil {
		count = a.progress.Read
	}
	archive, err := l.Open(ctx, count)
	if err != nil {
		return "", err
	}
	defer archive.Close()
	out, err := image.Unpack(ctx, archive, root, recipe, image.UnpackOptions{
		Namespace: a.ns, Below: image.Below(below, a.ns), SkipDevices: a.ns == whiteout.User, OneOwner: userns.OneID(), NeedEnd: l.DiffID == ""})
	if err != nil {
		return "", archive.Blame(err)
	}
	if err := recipe.Close(); err != nil {
		return "", err
	}
	rec := &layerRecord{DiffID: archive.DiffID(), Size: out.Size, Files: out.Files, Notes: append(l.Notes(), out.Notes...), Opaque: out.Opaque, Implied: out.Implied}
	if err := WriteJSON(dir+"/layer.json", rec); err != nil {
		return "", err
	}
	return strings.TrimPrefix(rec.DiffID, digestPrefix), stage.Sync()
}

// record makes the image known, last of all.
func (a *adder) record(config []byte, rec *imageRecord, full []string) (*Image, error) {
	id := image.Digest(config)
	stage, err := a.s.Stage("image")
	if err != nil {
		return nil, err
	}
	defer stage.Close()
	dir := stage.Dir + "/image"
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if err := WriteFile(dir+"/config.json", config, 0o600); err != nil {
		return nil, err
	}
	if err := WriteJSON(dir+"/image.json", rec); err != nil {
		return nil, err
	}
	var img *Image
	return img, a.s.Update(func() error {
		n, damage, err := a.s.namesIfAny()
		if err != nil {
			return err
		}
		if damage != nil {
			if len(full) > 0 {
				return damage
			}
			a.s.tell(damage)
		}
		err = Rename(dir, a.s.imagePath(id))
		if errors.Is(err, os.ErrExist) {
			if _, err = a.s.readImage(id, n); err == nil {
				err = a.s.addDigests(id, rec)
			} else if damageOf(err) != nil {
				err = exchange(dir, a.s.imagePath(id))
			}
		}
		if err != nil {
			return err
		}
		for _, f := range full {
			n[f] = id
		}
		if len(full) > 0 {
			if err := a.s.writeNames(n); err != nil {
				return err
			}
		}
		if img, err = a.s.readImage(id, n); err == nil && len(full) > 0 {
			img.asked = full[0]
		}
		return err
	})
}

// addDigests adds to the record of an image what it is called in rec.
func (s *Store) addDigests(id string, rec *imageRecord) error {
	var there imageRecord
	if err := ReadJSON(s.imagePath(id, "image.json"), &there); err != nil {
		return err
	}
	known := there.digests()
	changed := false
	for _, d := range rec.digests() {
		if !slices.Contains(known, d) {
			there.Digests = append(there.Digests, d)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	removeStale(s.imagePath(id))
	return WriteJSON(s.imagePath(id, "image.json"), &there)
}
