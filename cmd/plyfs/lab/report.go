package lab

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/plyfs/plyfs/cmd/plyfs/text"
	"github.com/plyfs/plyfs/cow"
)

// Of long lists only so much is printed; JSON has all of it.
const (
	mostEntries = 30
	mostCopyUps = 20
)

// width is how wide prose is printed.
const width = 84

// Print writes a result for people.
func (r *Result) Print(w io.Writer) {
	if !r.shown {
		r.printGoals(w)
	}
	if r.NotDone() > 0 {
		fmt.Fprintf(w, "\nAgain: plyfs lab %s. How it is done: plyfs lab --solve %s\n", r.Exercise, r.Exercise)
	}
	fmt.Fprintln(w, "\nIn the upper now")
	r.printUpper(w)
	fmt.Fprintln(w, "\nCopied up")
	r.printCopyUps(w)
	heading := "What happened"
	if r.NotDone() > 0 {
		heading = "What happens, once it is done"
	}
	fmt.Fprintf(w, "\n%s\n%s", heading, prose(r.Happened, 2))
	fmt.Fprintf(w, "\nThe kernel's overlayfs\n%s", prose(r.Rule, 2))
	fmt.Fprintf(w, "\n%s%s", prose("Question: "+r.Question, 0), prose(r.Answer, 2))
	if r.Directory != "" {
		fmt.Fprintf(w, "\nKept, and not mounted any more: %s\nRemove it with: rm -rf %s\n", r.Directory, r.Directory)
	}
}

func (r *Result) printGoals(w io.Writer) {
	fmt.Fprintf(w, "Goals of %s\n", r.Exercise)
	for _, g := range r.Goals {
		if g.Done {
			fmt.Fprintf(w, "  done      %s\n", g.Text)
		} else {
			fmt.Fprintf(w, "  NOT DONE  %s\n%s", g.Text, prose("Hint: "+g.Hint, 12))
		}
	}
}

// prose is text in lines of the usual width, indented by so many blanks.
func prose(s string, by int) string {
	blanks := strings.Repeat(" ", by)
	return blanks + strings.Join(text.Wrap(s, width-by), "\n"+blanks) + "\n"
}

func (r *Result) printUpper(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	if len(r.Upper) == 0 {
		fmt.Fprintln(t, "  nothing")
	}
	for i, e := range r.Upper {
		if i == mostEntries {
			fmt.Fprintf(t, "  and %d more\n", len(r.Upper)-i)
			break
		}
		what := e.Kind
		if e.Kind == "file" {
			what = fmt.Sprintf("file of %s, %s on the disk", text.Bytes(e.Size), text.Bytes(e.Space))
			if e.Links > 1 {
				what += fmt.Sprintf(", %d links", e.Links)
			}
		}
		for _, m := range e.Marks {
			what += fmt.Sprintf("\n  \t  %s = %s", m.Name, m.Value)
			if m.Means != "" {
				what += ": " + m.Means
			}
		}
		fmt.Fprintf(t, "  %s\t%s\n", text.OneLine(e.Path), what)
	}
}

func (r *Result) printCopyUps(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	if len(r.CopyUps) == 0 {
		fmt.Fprintln(t, "  nothing")
	}
	several, bytes := map[string]bool{}, int64(0)
	for _, ev := range r.CopyUps {
		several[ev.Mount] = true
		bytes += ev.BytesCopied
	}
	for i, ev := range r.CopyUps {
		if i == mostCopyUps {
			fmt.Fprintf(t, "  and %d more\n", len(r.CopyUps)-i)
			break
		}
		path := ev.Path
		if len(several) > 1 {
			path = ev.Mount + path
		}
		fmt.Fprintf(t, "  %s\t%s\n", text.OneLine(path), ev.sentence())
	}
	if len(r.CopyUps) > 1 {
		fmt.Fprintf(t, "  %d in all\t\t%s copied\n", len(r.CopyUps), text.Bytes(bytes))
	}
}

// sentence says what a copy-up was for, and what it took.
func (c *CopyUp) sentence() string {
	why := "for " + string(c.Cause)
	switch {
	case c.Cause == cow.CauseParent:
		why = "for something made below it"
	case c.Cause == cow.CauseComplete:
		why = "completed"
	case c.BytesAsked > 0:
		why += " of " + text.Bytes(c.BytesAsked)
	}
	how := fmt.Sprintf("%s of %s copied", text.Bytes(c.BytesCopied), text.Bytes(c.FileBytes))
	switch {
	case c.Err != "":
		how = "failed: " + c.Err
	case c.Method == cow.MethodClone:
		how = fmt.Sprintf("%s shared with the lower file (clone)", text.Bytes(c.FileBytes))
	case c.Method == cow.MethodRange:
		how += " (by range)"
	case c.BytesCopied == 0:
		how = "no data"
	}
	return why + "\t" + how
}
