package lab

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/cow"
)

// Every exercise has all its parts, in the usual width, under a name of its own.
func TestExercises(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range List() {
		if !regexp.MustCompile(`^[a-z]+$`).MatchString(e.Name) || e.Name == "all" || seen[e.Name] {
			t.Errorf("the name %q", e.Name)
		}
		seen[e.Name] = true
		if Find(e.Name) == nil || e.Name != Find(e.Name).Name {
			t.Errorf("%s is not found", e.Name)
		}
		for what, text := range map[string]string{"title": e.Title, "task": e.task, "question": e.question, "answer": e.answer, "rule": e.rule} {
			if strings.TrimSpace(text) == "" {
				t.Errorf("%s has no %s", e.Name, what)
			}
		}
		if len(e.layers) == 0 || len(e.mount) == 0 || len(e.try) == 0 || len(e.uppers) == 0 || len(e.solution) == 0 || len(e.goals) == 0 || e.happened == nil {
			t.Errorf("%s lacks a part", e.Name)
		}
		for _, s := range e.solution {
			if s.script == "" {
				t.Errorf("%s: %q does nothing", e.Name, s.text)
			}
		}
		for line := range strings.Lines(e.task) { // it is not wrapped
			if len(strings.TrimSpace(line)) > 92 {
				t.Errorf("%s: a line of %d characters: %s", e.Name, len(line), line)
			}
		}
	}
	if Find("nonsense") != nil {
		t.Error("there is an exercise called nonsense")
	}
}

// Of who does nothing no goal is reached, but that the layers are what they were; and that only as long as they are.
func TestNothingDone(t *testing.T) {
	for _, e := range List() {
		s := &stage{dir: t.TempDir()}
		if err := e.setUp(s); err != nil {
			t.Fatal(err)
		}
		before, err := Fingerprint(s.dir, names(e.layers)...)
		if err != nil {
			t.Fatal(err)
		}
		r := e.check(&state{dir: s.dir}, before)
		for i, g := range r.Goals {
			if last := i == len(r.Goals)-1; g.Done != last {
				t.Errorf("%s: %q: done is %v", e.Name, g.Text, g.Done)
			} else if !last && g.Hint == "" {
				t.Errorf("%s: no hint to %q", e.Name, g.Text)
			}
		}
		if b, err := json.Marshal(r); err != nil || strings.Contains(string(b), "null") {
			t.Errorf("%s: %v: %s", e.Name, err, b)
		}
		var out strings.Builder
		r.Print(&out)
		if r.NotDone() != len(e.goals) || strings.Count(out.String(), "NOT DONE") != len(e.goals) ||
			!strings.Contains(out.String(), "--solve "+e.Name) {
			t.Errorf("%s:\n%s", e.Name, out.String())
		}
		for line := range strings.Lines(out.String()) {
			if len(line) > 100 {
				t.Errorf("%s: a line of %d characters: %s", e.Name, len(line), line)
			}
		}
		file := file{name: "intruder", text: "x"}
		if err := file.make(s.path(e.layers[0].name)); err != nil {
			t.Fatal(err)
		}
		if r := e.check(&state{dir: s.dir}, before); r.NotDone() != len(e.goals)+1 {
			t.Errorf("%s: a changed layer is not noticed", e.Name)
		}
	}
}

// The marks are seen in every form.
func TestMarks(t *testing.T) {
	dir := t.TempDir()
	if err := MakeSystem(dir); err != nil {
		t.Fatal(err)
	}
	for _, f := range []file{{name: "aufs/.wh.gone"}, {name: "aufs/dir/.wh..wh..opq"}} {
		if err := f.make(dir); err != nil {
			t.Fatal(err)
		}
	}
	s := &state{dir: dir}
	for name, want := range map[string]bool{"app/opt/trial.txt": true, "base/opt/trial.txt": false, "aufs/gone": true, "base/none": false} {
		if s.isWhiteout(name) != want {
			t.Errorf("%s: whiteout is %v", name, !want)
		}
	}
	for name, want := range map[string]bool{"runtime/var/cache": true, "base/var/cache": false, "aufs/dir": true} {
		if s.isOpaque(name) != want {
			t.Errorf("%s: opaque is %v", name, !want)
		}
	}
	marks := s.marks("runtime/var/cache")
	if len(marks) != 1 || !strings.HasSuffix(marks[0].Name, ".overlay.opaque") || marks[0].Value != "y" || marks[0].Means == "" {
		t.Errorf("%+v", marks)
	}
	if got := printable("\x00\xfb\x01"); got != "(3 bytes)" {
		t.Error(got)
	}
}

// Each kind of copy-up in a line, and the sum.
func TestCopyUpsPrinted(t *testing.T) {
	r := &Result{CopyUps: []CopyUp{
		{"mnt", cow.Event{Path: "/etc", Cause: cow.CauseParent, Method: cow.MethodNone}},
		{"mnt", cow.Event{Path: "/etc/a\nb", Cause: cow.CauseWrite, Method: cow.MethodLoop, BytesAsked: 3, BytesCopied: 20, FileBytes: 20}},
		{"mnt", cow.Event{Path: "/big", Cause: cow.CauseChmod, Method: cow.MethodRange, FileBytes: 4 << 20}},
		{"mnt", cow.Event{Path: "/big", Cause: cow.CauseComplete, Method: cow.MethodCopyRange, BytesCopied: 4 << 20, FileBytes: 4 << 20}},
		{"two", cow.Event{Path: "/shared", Cause: cow.CauseWrite, Method: cow.MethodClone, BytesAsked: 1, FileBytes: 1024}},
		{"two", cow.Event{Path: "/bad", Cause: cow.CauseWrite, Method: cow.MethodLoop, Err: "no space"}},
	}}
	var out strings.Builder
	r.printCopyUps(&out)
	want := `  mnt/etc       for something made below it  no data
  mnt/etc/a\nb  for write of 3 B             20 B of 20 B copied
  mnt/big       for chmod                    0 B of 4.0 MiB copied (by range)
  mnt/big       completed                    4.0 MiB of 4.0 MiB copied
  two/shared    for write of 1 B             1.0 KiB shared with the lower file (clone)
  two/bad       for write                    failed: no space
  6 in all                                   4.0 MiB copied
`
	if out.String() != want {
		t.Errorf("%s", out.String())
	}
}
