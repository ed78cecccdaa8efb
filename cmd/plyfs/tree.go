package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plyfs/plyfs/overlay/fusefs"
)

var treeCmd = command{
	name:  "tree",
	args:  "DIRECTORY | CONTAINER[:PATH]",
	short: "list a directory of a mount, with the layer of each name, deleted ones too",
	long:  containerFile,
	run:   runTree,
}

// branch is one name of the tree.
type branch struct {
	Name     string    `json:"name"`
	Type     string    `json:"type"`
	From     string    `json:"from"` // the layers it comes from, topmost first
	Deleted  bool      `json:"deleted,omitempty"`
	Children []*branch `json:"children,omitempty"`
}

func runTree(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	depth := f.IntP("level", "L", -1, "go down only so many levels")
	asJSON := f.Bool("json", false, "print JSON")
	if err := c.parse(f, args, 1, 1); err != nil {
		return err
	}
	return c.on(f, *root, keepLook, func(p place) error {
		b, err := grow(p, *depth)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(b)
		}
		fmt.Fprintf(stdout, "%s  [%s]\n", oneLine(b.Name), b.From)
		printBranches(b.Children, "")
		return nil
	})
}

// grow reads the tree at p, depth levels deep (below 0: all of it). Its root has the name that the user gave it.
func grow(p place, depth int) (*branch, error) {
	var e explanation
	if err := ask(p, fusefs.CtlExplain, &e); err != nil {
		return nil, err
	}
	b := &branch{Name: p.name, Type: e.Type}
	for _, l := range e.Layers {
		if l.shown() {
			if b.From != "" {
				b.From += ", "
			}
			b.From += l.label()
		}
	}
	if e.Type != "directory" || depth == 0 {
		return b, nil
	}
	entries, err := os.ReadDir(p.path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, bareError(err))
	}
	present := map[string]bool{}
	for _, entry := range entries {
		child, err := grow(p.in(entry.Name()), depth-1)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		child.Name = entry.Name()
		present[entry.Name()] = true
		b.Children = append(b.Children, child)
	}
	for _, l := range e.Layers {
		if !l.shown() || !l.isLayer() {
			continue
		}
		names, err := deletedNames(filepath.Join(l.Dir, l.Name))
		if err != nil {
			continue // the layer may be out of reach for us; the view is not
		}
		for _, name := range names {
			if !present[name] {
				present[name] = true
				b.Children = append(b.Children, &branch{Name: name, Type: "whiteout", From: l.label(), Deleted: true})
			}
		}
	}
	slices.SortFunc(b.Children, func(x, y *branch) int { return cmp.Compare(x.Name, y.Name) })
	return b, nil
}

// shown says whether the part can be seen in the view.
func (p *part) shown() bool {
	return p.Part != "absent" && p.Part != "whiteout" && !strings.HasPrefix(p.Part, "hidden")
}

func printBranches(list []*branch, indent string) {
	for i, b := range list {
		elbow, below := "├── ", "│   "
		if i == len(list)-1 {
			elbow, below = "└── ", "    "
		}
		name := oneLine(b.Name)
		switch {
		case b.Deleted:
			fmt.Fprintf(stdout, "%s%s%s  [deleted by %s]\n", indent, elbow, name, b.From)
		case b.Type == "directory":
			fmt.Fprintf(stdout, "%s%s%s/  [%s]\n", indent, elbow, name, b.From)
		default:
			fmt.Fprintf(stdout, "%s%s%s  [%s]\n", indent, elbow, name, b.From)
		}
		printBranches(b.Children, indent+below)
	}
}
