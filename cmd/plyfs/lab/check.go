package lab

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/whiteout"
)

// Result is what the check of an exercise found.
type Result struct {
	Exercise  string   `json:"exercise"`
	Title     string   `json:"title"`
	Skipped   string   `json:"skipped,omitempty"` // why it was not done
	Goals     []Goal   `json:"goals"`
	Upper     []Entry  `json:"upper"` // what is in the uppers
	CopyUps   []CopyUp `json:"copyups"`
	Happened  string   `json:"happened"`
	Rule      string   `json:"rule"` // of the kernel's overlayfs
	Question  string   `json:"question"`
	Answer    string   `json:"answer"`
	Directory string   `json:"directory,omitempty"` // that was kept

	shown bool // the goals were, already
}

// Goal is a goal, reached or not.
type Goal struct {
	Text string `json:"goal"`
	Done bool   `json:"done"`
	Hint string `json:"hint,omitempty"` // if not
}

// Entry is a file in an upper.
type Entry struct {
	Path  string `json:"path"`
	Kind  string `json:"kind"`
	Size  int64  `json:"size"`
	Space int64  `json:"space"` // that it takes on the disk
	Links uint64 `json:"links"`
	Marks []Mark `json:"marks,omitempty"`
}

// Mark is an extended attribute that a union filesystem keeps its records in.
type Mark struct {
	Name  string `json:"name"`
	Value string `json:"value"` // as far as it is text
	Means string `json:"means,omitempty"`
}

// meanings of marks, by what follows the namespace.
var meanings = map[string]string{
	"opaque":   "hides the directories below",
	"redirect": "where the lower part of the directory is",
	"origin":   "handle of the lower file it was copied from",
	"impure":   "has copied-up files in it",
	"nlink":    "what to add to the count of links",
	"metacopy": "attributes only, the data is below",
	"whiteout": "deletes the name",
	"plyfs":    "record of an unfinished copy: what is not here yet is in the lower file",
}

// NewResult returns a result with nothing in it.
func NewResult(e *Exercise) *Result {
	return &Result{Exercise: e.Name, Title: e.Title, Goals: []Goal{}, Upper: []Entry{}, CopyUps: []CopyUp{}}
}

// NotDone counts the goals that were not reached.
func (r *Result) NotDone() int {
	n := 0
	for _, g := range r.Goals {
		if !g.Done {
			n++
		}
	}
	return n
}

// check looks at all goals. Before is the fingerprint of the layers as they were made.
func (e *Exercise) check(s *state, before string) *Result {
	r := NewResult(e)
	r.Rule, r.Question, r.Answer = line(e.rule), e.question, line(e.answer)
	r.CopyUps = append(r.CopyUps, s.copyUps...)
	unchanged := goal{
		text: "the lower layers are what they were",
		hint: "change files only through the mount: layers that are mounted belong to the union",
		done: func(*state) bool {
			after, err := Fingerprint(s.dir, names(e.layers)...)
			return err == nil && after == before
		},
	}
	for _, g := range append(e.goals[:len(e.goals):len(e.goals)], unchanged) {
		out := Goal{Text: g.text, Done: g.done(s)}
		if !out.Done {
			out.Hint = g.hint
		}
		r.Goals = append(r.Goals, out)
	}
	for _, upper := range e.uppers {
		r.Upper = append(r.Upper, s.entries(upper)...)
	}
	r.Happened = line(e.happened(s))
	return r
}

// line takes the line breaks out of prose, which is wrapped when it is printed.
func line(s string) string { return strings.Join(strings.Fields(s), " ") }

// entries lists what is in a directory of the exercise.
func (s *state) entries(dir string) []Entry {
	var list []Entry
	_ = filepath.WalkDir(s.path(dir), func(path string, d fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(s.dir, path)
		if err != nil || relErr != nil || rel == dir {
			return nil
		}
		st := s.stat(rel)
		e := Entry{Path: rel, Size: st.Size, Space: st.Blocks * 512, Links: uint64(st.Nlink), Marks: s.marks(rel)}
		switch {
		case d.IsDir():
			e.Kind = "directory"
		case s.isWhiteout(rel) || strings.HasPrefix(d.Name(), whiteout.PrefixWhiteout):
			e.Kind = "whiteout"
		case d.Type().IsRegular():
			e.Kind = "file"
		case d.Type()&os.ModeSymlink != 0:
			e.Kind = "symlink"
		default:
			e.Kind = "special file"
		}
		list = append(list, e)
		return nil
	})
	return list
}

// marks returns the marks of a file in a layer.
func (s *state) marks(name string) (list []Mark) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(s.path(name), buf)
	if err != nil {
		return nil
	}
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		for _, ns := range []whiteout.Namespace{whiteout.Trusted, whiteout.User} {
			if key, ok := strings.CutPrefix(attr, ns.Name("")); ok {
				value, _ := s.mark(name, key)
				list = append(list, Mark{attr, printable(value), meanings[key]})
			}
		}
	}
	return list
}

// printable is a mark's value, or its length if it is no text.
func printable(value string) string {
	if strings.IndexFunc(value, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }) >= 0 {
		return "(" + strconv.Itoa(len(value)) + " bytes)"
	}
	return value
}
