package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay/fusefs"
)

var explainCmd = command{
	name:  "explain",
	args:  "PATH | CONTAINER:PATH ...",
	short: "say which layer a file comes from, and why",
	long: `Of a name that does not exist it says which layer deleted it. With --json one PATH gives
an object, and several an array of those that could be explained; what went wrong with the
others is on standard error, and the exit code is 1.
` + containerFile,
	run: runExplain,
}

// explanation is plyfs.explain of one file.
type explanation struct {
	Path     string `json:"path"` // in the view
	Type     string `json:"type"`
	Sentence string `json:"sentence"`
	Layers   []part `json:"layers"` // topmost first
}

// part is what one layer has to do with a file.
type part struct {
	Role  string   `json:"role"`  // upper, lower or data; of a graft what it is
	Index int      `json:"index"` // 1 is the topmost lower directory
	Dir   string   `json:"dir"`   // the layer
	Name  string   `json:"name"`  // of the file in it
	Part  string   `json:"part"`  // what the layer contributes, in a word
	Marks []string `json:"marks,omitempty"`
	Note  string   `json:"note,omitempty"`
}

func (p *part) label() string {
	if p.Role == "lower" || p.Role == "data" {
		return fmt.Sprintf("%s %d", p.Role, p.Index)
	}
	return p.Role
}

// isLayer says whether the part is one of a layer, and not of something grafted into the view.
func (p *part) isLayer() bool { return p.Role == "upper" || p.Role == "lower" || p.Role == "data" }

func runExplain(c *command, args []string) error {
	f := c.flags()
	root := storeFlag(f)
	asJSON := f.Bool("json", false, "print JSON")
	if err := c.parse(f, args, 1, -1); err != nil {
		return err
	}
	list, err := findSubjects(*root, f.Args())
	if err != nil {
		return err
	}
	found, i := []*explanation{}, 0
	err = eachName(f.Args(), "explain", func(string) error {
		i++
		e, err := list[i-1].explain()
		if err != nil {
			return err
		}
		if !*asJSON {
			if len(found) > 0 {
				fmt.Fprintln(stdout)
			}
			printExplanation(stdout, e)
		}
		found = append(found, e)
		return nil
	})
	switch {
	case !*asJSON:
		return err
	case f.NArg() > 1:
		return errors.Join(printJSON(found), err)
	case err == nil:
		return printJSON(found[0])
	}
	return err
}

// explain explains a path or a file in a container.
func (s *subject) explain() (e *explanation, err error) {
	if s.box == nil || s.dir != "" {
		err = s.in(func(p place) error {
			e, err = explain(p)
			return err
		})
		return e, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	said := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(read) // ends with the last writer; what is missing is no JSON
		read.Close()
		said <- b
	}()
	err = s.through(keepLook, write, []string{"explain", "--json", "--", s.arg})
	write.Close()
	b := <-said
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	return e, err
}

func printExplanation(w io.Writer, e *explanation) {
	fmt.Fprintf(w, "%s (%s)\n", oneLine(e.Path), e.Type)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range e.Layers {
		text := p.Part
		for _, m := range p.Marks {
			text += ", " + m
		}
		if p.Note != "" {
			text += " (" + p.Note + ")"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\n", p.label(), oneLine(text), oneLine(filepath.Join(p.Dir, p.Name)))
	}
	t.Flush()
	fmt.Fprintf(w, "  %s\n", oneLine(e.Sentence))
}

// explain asks the mount about a file. Of a name that does not exist in the view, the
// directory it would be in tells which layers to look at.
func explain(p place) (*explanation, error) {
	var e explanation
	err := ask(p, fusefs.CtlExplain, &e)
	up, name := filepath.Split(filepath.Clean(p.path))
	parent := place{up, p.name}
	if up == "" {
		parent.path = "."
	}
	if err == nil && e.Type != "directory" {
		var dir explanation
		if ask(parent, fusefs.CtlExplain, &dir) == nil {
			e.under(&dir, name)
		}
	}
	if !errors.Is(err, unix.ENOENT) {
		return &e, err
	}
	var dir explanation
	if parentErr := ask(parent, fusefs.CtlExplain, &dir); parentErr != nil {
		return nil, err
	}
	e = explanation{Path: filepath.Join(dir.Path, name), Type: "no such name", Sentence: "No layer has it."}
	deleted, hidden := "", []string(nil)
	for _, p := range dir.Layers {
		if p.Part == "absent" || p.Part == "data" {
			continue
		}
		shows := !strings.HasPrefix(p.Part, "hidden") // the directory does
		host := filepath.Join(p.Dir, p.Name, name)
		p.Name, p.Marks, p.Note = filepath.Join(p.Name, name), nil, ""
		if p.isLayer() && isWhiteout(filepath.Dir(host), name) {
			p.Part = "whiteout"
			if deleted == "" && shows {
				deleted = p.label()
			}
		} else if what := kindOf(host); what != "" {
			p.Part = "hidden " + what
			if !shows {
				hidden = append(hidden, p.label())
			}
		} else {
			p.Part = "absent"
		}
		e.Layers = append(e.Layers, p)
	}
	if len(dir.Layers) > 0 && !dir.Layers[0].isLayer() {
		if top := &dir.Layers[0]; top.Role != "graft" {
			e.Sentence = fmt.Sprintf("The %s that is grafted there has no such name, and what the layers have there is hidden.", top.Role)
		}
	} else if deleted != "" {
		e.Sentence = fmt.Sprintf("It does not exist: %s has a whiteout, which hides the name in all layers below.", deleted)
	} else if len(hidden) > 0 {
		e.Sentence = fmt.Sprintf("It does not exist: what %s has under that name is hidden with its directory.", strings.Join(hidden, ", "))
	}
	return &e, nil
}
