package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer/store/userns"
	"github.com/plyfs/plyfs/overlay/fusefs"
	"github.com/plyfs/plyfs/whiteout"
)

var checkCmd = command{
	name:  "check",
	args:  "MOUNTPOINT | CONTAINER | LAYER ...",
	short: "look at every mark in a layer, and say which make no sense",
	long: `LAYER is a directory that is or was the upper or a lower directory of a mount, MOUNTPOINT
stands for all layers of a live one, CONTAINER for those of a container, which need not run, and
its work directory. With --work, what a killed mount left in the work directory is listed too. Nothing is
changed. The exit code is 1 if something is wrong; notes alone are not.`,
	run: runCheck,
}

// finding is one thing worth knowing about a file of a layer.
type finding struct {
	Path  string `json:"path"`
	Text  string `json:"text"`
	Wrong bool   `json:"wrong"` // as opposed to: worth knowing
}

// layerReport is what was found in one layer.
type layerReport struct {
	Layer    string         `json:"layer"`
	Files    int            `json:"files"`
	Marks    map[string]int `json:"marks"` // how many of each kind
	Findings []finding      `json:"findings,omitempty"`
}

func runCheck(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	work := f.String("work", "", "also look at this work `dir`ectory")
	asJSON := f.Bool("json", false, "print JSON")
	if err := c.parse(f, args, 1, -1); err != nil {
		return err
	}
	list, err := findSubjects(*root, f.Args())
	if err != nil {
		return err
	}
	var reports []*layerReport
	add := func(r *layerReport, err error) error {
		reports = append(reports, r)
		return err
	}
	for _, s := range list {
		layers, err := s.layers()
		if err != nil {
			return err
		}
		for _, l := range layers {
			if err := add(checkLayer(l)); err != nil {
				return err
			}
		}
		if s.box != nil {
			if err := add(checkWork(s.store.ContainerPath(s.box, "work"))); err != nil {
				return err
			}
		}
	}
	if *work != "" {
		if err := add(checkWork(*work)); err != nil {
			return err
		}
	}
	wrong := 0
	for _, r := range reports {
		for _, x := range r.Findings {
			if x.Wrong {
				wrong++
			}
		}
		if !*asJSON {
			r.print()
		}
	}
	if *asJSON {
		if err := printJSON(reports); err != nil {
			return err
		}
	}
	if wrong > 0 {
		return fmt.Errorf("check: %d marks make no sense", wrong)
	}
	return nil
}

// layers returns the layers of a container or a mount, topmost first; what is neither is one.
func (s *subject) layers() (layers []string, err error) {
	if s.box != nil {
		if err := userns.Enter(); err != nil { // there are files of others among them
			return nil, err
		}
		img, err := s.store.Image(s.box.Image)
		if err != nil {
			return nil, fmt.Errorf("container %s: %w", s.box.Name, err)
		}
		return append([]string{s.store.ContainerPath(s.box, "upper")}, img.LayerDirs()...), nil
	}
	layers = []string{s.arg}
	err = s.in(func(p place) error {
		var st mountStat
		switch err := ask(p, fusefs.CtlStat, &st); {
		case errors.Is(err, errNoMount):
			return nil
		case err != nil:
			return err
		case st.Union.Daemon.PID == 0:
			return fmt.Errorf("%s: only root and the owner of the mount may ask that", p.name)
		}
		d := &st.Union.Daemon
		layers = slices.Concat(d.Lowers, d.DataLowers)
		if d.Upper != "" {
			layers = append([]string{d.Upper}, layers...)
		}
		return nil
	})
	return layers, err
}

func (r *layerReport) print() {
	fmt.Fprintf(stdout, "%s: %d files and directories", oneLine(r.Layer), r.Files)
	kinds := make([]string, 0, len(r.Marks))
	for k := range r.Marks {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	for _, k := range kinds {
		fmt.Fprintf(stdout, ", %d %s", r.Marks[k], k)
	}
	fmt.Fprintln(stdout)
	for _, x := range r.Findings {
		word := "note"
		if x.Wrong {
			word = "wrong"
		}
		fmt.Fprintf(stdout, "  %s: %s: %s\n", word, oneLine(x.Path), x.Text)
	}
}

func (r *layerReport) note(path, format string, args ...any) {
	r.Findings = append(r.Findings, finding{path, fmt.Sprintf(format, args...), false})
}

func (r *layerReport) wrong(path, format string, args ...any) {
	r.Findings = append(r.Findings, finding{path, fmt.Sprintf(format, args...), true})
}

// checkLayer looks at every file of a layer.
func checkLayer(dir string) (*layerReport, error) {
	r := &layerReport{Layer: dir, Marks: map[string]int{}}
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(root); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s: %w", dir, unix.ENOTDIR)
	}
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		rel := strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
		if rel == "" {
			rel = "."
		}
		if err != nil {
			r.wrong(rel, "cannot be read: %v", bareError(err))
			return nil
		}
		r.Files++
		r.checkFile(path, rel, e)
		return nil
	})
	return r, err
}

func (r *layerReport) checkFile(path, rel string, e fs.DirEntry) {
	dir, name := filepath.Split(path)
	switch {
	case whiteout.IsAUFSMeta(name):
		if name == whiteout.OpaqueName {
			r.Marks["opaque"]++
		}
		return
	case strings.HasPrefix(name, whiteout.PrefixWhiteout):
		r.Marks["whiteout"]++
		return
	case rel != "." && isWhiteout(dir, name):
		r.Marks["whiteout"]++
	}
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		if err != unix.EOPNOTSUPP && err != unix.ENOTSUP {
			r.wrong(rel, "its attributes cannot be read: %v", err)
		}
		return
	}
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		for _, ns := range []whiteout.Namespace{whiteout.Trusted, whiteout.User} {
			key, ok := strings.CutPrefix(attr, ns.Name(""))
			if !ok || strings.HasPrefix(key, "overlay.") {
				continue // no mark, or one that belongs to a nested overlay
			}
			value := make([]byte, 64<<10)
			n, err := unix.Lgetxattr(path, attr, value)
			if err != nil {
				r.wrong(rel, "%s cannot be read: %v", attr, err)
				continue
			}
			r.checkMark(rel, key, value[:n], e)
		}
	}
}

// checkMark looks at one mark: does its value say anything, and does it belong on such a
// file?
func (r *layerReport) checkMark(rel, key string, value []byte, e fs.DirEntry) {
	var err error
	directories, files := true, true // where it may be
	switch key {
	case "opaque":
		files = false
		if whiteout.ParseOpaque(value) == whiteout.OpaqueNone {
			err = fmt.Errorf("%q means nothing", value)
		}
	case "redirect":
		_, err = whiteout.ParseRedirect(value)
	case "metacopy":
		directories = false
		_, err = whiteout.ParseMetacopy(value)
	case "origin", "upper":
		if len(value) > 0 { // an empty one stands for a lower that has no handle
			_, err = whiteout.ParseOrigin(value)
		}
	case "nlink":
		directories = false
		_, err = whiteout.ParseNlink(value)
	case "impure":
		files = false
	case "whiteout":
		directories = false
	case "protattr", "uuid", "xattr":
	case "plyfs":
		directories = false
		var rec *cow.Record
		if rec, err = cow.ParseRecord(value); err == nil {
			r.note(rel, "unfinished: of its first %s, what was not copied is in %s of %s; plyfs settle, or unmounting, completes it",
				bytesText(rec.Valid), oneLine(rec.Path), oneLine(rec.Layer))
		}
	default:
		r.note(rel, "unknown mark %q", key)
	}
	if key == "plyfs" {
		key = "unfinished"
	}
	r.Marks[key]++
	switch {
	case err != nil:
		r.wrong(rel, "mark %s: %v", key, err)
	case e.IsDir() && !directories, !e.IsDir() && !files:
		r.wrong(rel, "mark %s on a %s", key, kindOf(filepath.Join(r.Layer, rel)))
	}
}

// checkWork lists what is in a work directory that is in nobody's use.
func checkWork(dir string) (*layerReport, error) {
	r := &layerReport{Layer: dir, Marks: map[string]int{}}
	staged, err := os.ReadDir(filepath.Join(dir, "work"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range staged {
		if e.Name() != "incompat" {
			r.note(filepath.Join("work", e.Name()), "being copied, or left by a killed mount; the next mount removes it")
			continue
		}
		marks, err := os.ReadDir(filepath.Join(dir, "work/incompat"))
		if err != nil {
			return nil, err
		}
		for _, m := range marks {
			r.note(filepath.Join("work/incompat", m.Name()), "keeps the kernel's overlayfs from using the upper")
		}
	}
	links, err := os.ReadDir(filepath.Join(dir, "index"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	r.Files = len(staged) + len(links)
	if len(links) > 0 {
		r.Marks["index entries"] = len(links)
	}
	return r, nil
}

// bareError takes the path out of an error that will be given one.
func bareError(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
