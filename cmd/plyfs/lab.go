package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"golang.org/x/term"

	"github.com/plyfs/plyfs/cmd/plyfs/lab"
)

var labCmd = command{
	name:  "lab",
	args:  "[NAME | all]",
	short: "exercises about layers: set up, done in a shell, checked, explained",
	long: `Without NAME the exercises are listed. With it one is set up in a temporary directory (in
$TMPDIR), mounted, and a shell is started there. When that ends the goals are checked, and it is
told what happened in the layers; then everything is unmounted and removed. With --solve the
commands of a model solution are run and shown instead; all stands for all exercises.
The exit code is 1 if a goal was not reached.`,
	run: runLab,
}

func runLab(c *command, args []string) error {
	f := c.flags()
	solve := f.Bool("solve", false, "show the model solution; needs no terminal")
	keep := f.Bool("keep", false, "do not remove the directory at the end")
	asJSON := f.Bool("json", false, "print JSON: the list, or what the check found")
	if err := c.parse(f, args, 0, 1); err != nil {
		return err
	}
	name := f.Arg(0)
	if name == "" {
		if *solve || *keep {
			return usagef("lab: which exercise? plyfs lab lists them")
		}
		return listExercises(*asJSON)
	}
	exercises := lab.List()
	if name != "all" {
		e := lab.Find(name)
		if e == nil {
			return usagef("lab: no exercise %q; plyfs lab lists them", name)
		}
		exercises = []*lab.Exercise{e}
	}
	o := lab.Options{Solve: *solve, Keep: *keep, Out: os.Stdout}
	if *asJSON { // what is not JSON goes elsewhere
		o.Out = os.Stderr
		if *solve {
			o.Out = io.Discard
		}
	}
	if !*solve {
		if name == "all" {
			return usagef("lab: all goes with --solve; without it they are done one at a time")
		}
		if out, _ := o.Out.(*os.File); !term.IsTerminal(int(os.Stdin.Fd())) || !term.IsTerminal(int(out.Fd())) {
			return usagef("lab: no terminal to start a shell on; plyfs lab --solve %s shows the model solution", name)
		}
	}
	return runExercises(exercises, o, *asJSON)
}

func listExercises(asJSON bool) error {
	if asJSON {
		return printJSON(lab.List())
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	for _, e := range lab.List() {
		title := e.Title
		if e.Root {
			title += " (as root)"
		}
		fmt.Fprintf(t, "%s\t%s\n", e.Name, title)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Print("\nplyfs lab NAME starts one; plyfs lab --solve NAME shows how it is done.\n")
	return err
}

// runExercises runs one, or all that can be done here.
func runExercises(exercises []*lab.Exercise, o lab.Options, asJSON bool) error {
	var results []*lab.Result
	left, failed := 0, error(nil)
	for i, e := range exercises {
		if i > 0 {
			fmt.Fprint(o.Out, "\n----\n\n")
		}
		r, err := lab.Run(e, o)
		if errors.Is(err, lab.ErrMissing) {
			r = lab.NewResult(e)
			r.Skipped = err.Error()
			if len(exercises) == 1 {
				failed = fmt.Errorf("lab: %s: %w", e.Name, err)
			} else {
				fmt.Fprintf(o.Out, "%s: skipped, it %v\n", e.Name, err)
			}
		} else if err != nil {
			return fmt.Errorf("lab: %s: %w", e.Name, err)
		}
		left += r.NotDone()
		results = append(results, r)
		if !asJSON && r.Skipped == "" {
			r.Print(stdout)
		}
	}
	if asJSON {
		if err := printResults(results); err != nil {
			return err
		}
	}
	if failed == nil && left > 0 {
		failed = fmt.Errorf("lab: %d of the goals not reached", left)
	}
	return failed
}

// printResults prints an object for one exercise, and a list for all.
func printResults(results []*lab.Result) error {
	if len(results) == 1 {
		return printJSON(results[0])
	}
	return printJSON(results)
}
