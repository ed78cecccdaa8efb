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
	check := func() *Result { return e.check(&state{dir: s.dir, copyUps: events.all()}, before) }
	if o.Solve {
		fmt.Fprintf(o.Out, "%s\n\nThe model solution:\n\n", e.task)
		if err := s.steps(e.solution, events.poll); err != nil {
			return nil, err
		}
		r = check()
	} else if r, err = s.letDo(e, check); err != nil {
		return nil, err
	}
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

// letDo shows the task and starts a shell, as often as there are goals left and somebody wants to go on.
func (s *stage) letDo(e *Exercise, check func() *Result) (*Result, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nTry:\n", e.task)
	for _, line := range e.try {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	fmt.Fprintf(&b, "\n%s", prose("Question: "+e.question, 0))
	if err := os.WriteFile(s.path("TASK"), []byte(b.String()), 0o644); err != nil {
		return nil, err
	}
	fmt.Fprintf(s.out, "%s\nThis is a shell in %s; cat TASK shows the task again.\nLeave it (exit, ^D) to have the work checked.\n\n", b.String(), s.dir)
	for {
		if err := s.shell(e.Name); err != nil {
			return nil, err
		}
		fmt.Fprintln(s.out)
		r := check()
		if r.NotDone() == 0 {
			return r, nil
		}
		r.printGoals(s.out)
		r.shown = true
		fmt.Fprint(s.out, "\nEnter goes back to the shell, q ends the exercise: ")
		if more, err := s.more(os.Stdin); err != nil || !more {
			return r, err
		}
	}
}

// more reads a line of the answer to whether to go on. The end of the input, ^D, is none.
func (s *stage) more(in io.Reader) (bool, error) {
	answer := make(chan bool, 1)
	go func() {
		var line []byte
		for b := make([]byte, 1); ; { // not a byte more: what follows is the shell's
			if n, err := in.Read(b); n == 0 || err != nil {
				answer <- false
				return
			}
			if b[0] == '\n' {
				answer <- len(strings.TrimSpace(string(line))) == 0
				return
			}
			line = append(line, b[0])
		}
	}()
	select {
	case more := <-answer:
		if !more {
			fmt.Fprintln(s.out)
		}
		return more, nil
	case <-s.stop:
		s.interrupted = true
		return false, errInterrupted
	}
}
