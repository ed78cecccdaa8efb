package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/plyfs/plyfs/overlay"
)

// under makes an explanation of a file, by another of its names, that of name in the directory dir. An inode does not
// know by which of its names it was asked for; what the layers have under that name is another matter.
func (e *explanation) under(dir *explanation, name string) {
	path := filepath.Join(dir.Path, name)
	if path == e.Path || len(dir.Layers) != len(e.Layers) {
		e.Path = path
		return
	}
	before := e.hides()
	e.Path = path
	for i := range e.Layers {
		p, d := &e.Layers[i], &dir.Layers[i]
		if !p.isLayer() || p.Role != d.Role || p.Index != d.Index {
			continue
		}
		there := filepath.Join(d.Name, name)
		host := filepath.Join(d.Dir, there)
		same := sameFile(host, filepath.Join(p.Dir, p.Name))
		switch {
		case p.Part == "provides" || p.Part == "data": // by another name, if not by this one
			if same {
				p.Name = there
			}
			continue
		case d.Part == "absent":
			p.Part, there = "absent", strings.TrimPrefix(path, "/")
		case isWhiteout(filepath.Dir(host), name):
			p.Part = "whiteout"
		default:
			switch what := kindOf(host); what {
			case "":
				p.Part = "absent"
			case "file":
				p.Part = "hidden"
			default:
				p.Part = "hidden " + what
			}
		}
		p.Name, p.Note = there, ""
		if !same {
			p.Marks = nil
		}
	}
	if s, ok := strings.CutSuffix(e.Sentence, before); ok {
		e.Sentence = s + e.hides()
	}
}

// hides is the end of the sentence.
func (e *explanation) hides() string {
	var parts []overlay.Part
	for _, p := range e.Layers {
		parts = append(parts, overlay.Part{Role: p.Role, Index: p.Index, Part: p.Part})
	}
	return overlay.Hides(parts)
}

func sameFile(a, b string) bool {
	x, err := os.Lstat(a)
	if err != nil {
		return false
	}
	y, err := os.Lstat(b)
	return err == nil && os.SameFile(x, y)
}
