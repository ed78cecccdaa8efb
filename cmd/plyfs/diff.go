package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/plyfs/plyfs/overlay/fusefs"
	"github.com/plyfs/plyfs/whiteout"
)

var diffCmd = command{
	name:  "diff",
	args:  "MOUNTPOINT | CONTAINER",
	short: "list what the upper changes: A added, C changed, D deleted",
	long: `A changed directory is listed before what changed in it. Of a lower file with several
names one is listed, and all of them after the unmount, which makes the others in the
upper. What a bind, volume or tmpfs hides is listed as one name; what is in them is no
change of the upper.
` + containerArgument + ` It need not run.`,
	run: runDiff,
}

// change is one line of the difference.
type change struct {
	Kind string `json:"kind"` // A, C or D
	Path string `json:"path"` // in the view
}

func runDiff(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	asJSON := f.Bool("json", false, "print JSON")
	if err := c.parse(f, args, 1, 1); err != nil {
		return err
	}
	return c.on(f, *root, keepLook, func(p place) error { return printDiff(p, *asJSON) })
}

func printDiff(p place, asJSON bool) error {
	about, below, err := mountOf(p)
	if err != nil {
		return err
	}
	if about.Upper == "" {
		return fmt.Errorf("%s: the mount has no upper, and so no changes", p.name)
	}
	changes := []change{}
	if err := changesIn(p, below, &changes); err != nil {
		return err
	}
	if asJSON {
		return printJSON(changes)
	}
	for _, ch := range changes {
		fmt.Fprintln(stdout, ch.Kind, oneLine(ch.Path))
	}
	return nil
}

// changesIn appends what the upper changes below p, a directory of the mount that
// is called name in the view.
func changesIn(p place, name string, out *[]change) error {
	var e explanation
	if err := ask(p, fusefs.CtlExplain, &e); err != nil {
		return err
	}
	if e.Type != "directory" {
		return fmt.Errorf("%s: not a directory; plyfs explain tells of a file", p.name)
	}
	if len(e.Layers) == 0 || e.Layers[0].Role != "upper" || !e.Layers[0].shown() {
		return nil
	}
	upper := filepath.Join(e.Layers[0].Dir, e.Layers[0].Name)
	deleted, err := deletedNames(upper)
	if err != nil {
		return err
	}
	isDeleted := map[string]bool{}
	for _, d := range deleted {
		isDeleted[d] = true
	}
	entries, err := os.ReadDir(upper)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		base := entry.Name()
		if target, ok := whiteout.AUFSTarget(base); ok {
			base = target
		} else if whiteout.IsAUFSMeta(base) {
			continue
		}
		path := filepath.Join(name, base)
		if isDeleted[base] {
			*out = append(*out, change{"D", path})
			continue
		}
		var e explanation
		err := ask(p.in(base), fusefs.CtlExplain, &e)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		*out = append(*out, change{changeKind(&e), path})
		if e.Type == "directory" {
			if err := changesIn(p.in(base), path, out); err != nil {
				return err
			}
		}
	}
	return nil
}

// changeKind is C if a lower layer has the name too, shown or hidden.
func changeKind(e *explanation) string {
	for _, p := range e.Layers {
		if p.Role == "lower" && p.Part != "absent" && p.Part != "whiteout" {
			return "C"
		}
	}
	return "A"
}
