package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Options say how an exercise is run.
type Options struct {
	Solve bool      // show the model solution instead of starting a shell
	Keep  bool      // leave the directory, unmounted
	Out   io.Writer // for everything but the result
}

// ErrMissing is in an error that says why an exercise cannot be done here.
var ErrMissing = errors.New("cannot be done here")

// Run sets an exercise up, has it done and checked, and takes everything away again. Without an error the result
// says which goals were reached.
func Run(e *Exercise, o Options) (r *Result, err error) {
	s, err := newStage("plyfs-lab-"+e.Name+"-", o.Out)
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, s.close(o.Keep && err == nil))
	}()
	if e.missing != nil {
		if err := e.missing(s.dir); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMissing, err)
		}
	}
	if err := e.setUp(s); err != nil {
		return nil, err
	}
	before, err := Fingerprint(s.dir, names(e.layers)...)
	if err != nil {
		return nil, err
	}
	events := collect(s.dir)
	defer events.close()
	fmt.Fprintf(o.Out, "%s: %s\n\n", e.Name, e.Title)
	for _, line := range append(e.prepare, e.mount...) {
		if err := s.command(line); err != nil {
			return nil, err
		}
	}
	events.poll()
	fmt.Fprintln(o.Out)
	if o.Solve {
		fmt.Fprintf(o.Out, "%s\n\nThe model solution:\n\n", e.task)
		err = s.steps(e.solution, events.poll)
	} else {
		err = s.letDo(e)
	}
	if err != nil {
		return nil, err
	}
	r = e.check(&state{dir: s.dir, copyUps: events.all()}, before)
	if o.Keep {
		r.Directory = s.dir
	}
	return r, nil
}

func (e *Exercise) setUp(s *stage) error {
	if err := makeLayers(s.dir, e.layers); err != nil {
		return err
	}
	if err := makeLayers(s.dir, e.outside); err != nil {
		return err
	}
	return makeDirs(s.dir, e.dirs...)
}

// letDo shows the task and starts a shell.
func (s *stage) letDo(e *Exercise) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nTry:\n", e.task)
	for _, line := range e.try {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	fmt.Fprintf(&b, "\n%s", prose("Question: "+e.question, 0))
	if err := os.WriteFile(s.path("TASK"), []byte(b.String()), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s\nThis is a shell in %s; cat TASK shows the task again.\nLeave it (exit, ^D) to have the work checked.\n\n", b.String(), s.dir)
	return s.shell(e.Name)
}
