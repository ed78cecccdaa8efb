package lab

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/cmd/plyfs/lab"
	"github.com/plyfs/plyfs/integration/harness"
)

// The model solution reaches every goal.
func TestSolutions(t *testing.T) {
	for _, e := range lab.List() {
		t.Run(e.Name, func(t *testing.T) {
			if e.Root {
				harness.NeedRoot(t)
			}
			cmd := command(desk(t), "--solve", "--json", e.Name)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s\n%s", err, &stderr, out)
			}
			r := checked(t, out)
			if r.Exercise != e.Name || len(r.Goals) < 2 || r.NotDone() > 0 || r.Skipped != "" || r.Happened == "" || r.Rule == "" || r.Answer == "" {
				t.Errorf("%s", out)
			}
			if hidden := e.Name == "hide" || e.Name == "volume"; (len(r.Upper) == 0) != hidden || (len(r.CopyUps) == 0) != hidden {
				t.Errorf("the uppers have %d files after %d copy-ups", len(r.Upper), len(r.CopyUps))
			}
		})
	}
}

// What is shown of it: the commands, what they print, and the check.
func TestSolutionIsShown(t *testing.T) {
	dir := desk(t)
	out, err := command(dir, "--solve", "whiteout").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"   $ plyfs mount --lower app",
		"   $ cat mnt/etc/hosts\n     cat: mnt/etc/hosts: No such file",
		"  done      the upper has a whiteout for it\n",
		"\n  upper/etc/hosts     whiteout\n",
		"\nQuestion: ",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "NOT DONE") || strings.Contains(string(out), dir) {
		t.Errorf("%s", out)
	}
}

// An ordinary user can do all but what is root's, which is said.
func TestOrdinaryUser(t *testing.T) {
	a := harness.NewAccount(t)
	t.Cleanup(func() { leavesNothing(t, a.Home) })
	out, err := a.Command(harness.Binary(), "lab", "--solve", "--json", "all").Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var all []lab.Result
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != len(lab.List()) {
		t.Fatalf("%d results", len(all))
	}
	for i, e := range lab.List() {
		r := &all[i]
		if e.Root != strings.Contains(r.Skipped, "only root") || r.NotDone() > 0 || !e.Root && len(r.Goals) == 0 {
			t.Errorf("%s: %+v", e.Name, r)
		}
	}
	text, err := a.Command(harness.Binary(), "lab", "--solve", "kernel").CombinedOutput()
	if harness.ExitCode(err) != 1 || !strings.Contains(string(text), "kernel: cannot be done here: only root") || strings.Count(string(text), "\n") != 1 {
		t.Errorf("%v: %s", err, text)
	}
}

// The list names each exercise, for people and for programs.
func TestList(t *testing.T) {
	dir := desk(t)
	out, err := command(dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := command(dir, "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []struct{ Name, Title string }
	if err := json.Unmarshal(b, &list); err != nil || len(list) != len(lab.List()) {
		t.Fatalf("%v: %s", err, b)
	}
	for i, e := range lab.List() {
		if list[i].Name != e.Name || list[i].Title != e.Title || !strings.Contains(string(out), e.Title) {
			t.Errorf("%s: %+v\n%s", e.Name, list[i], out)
		}
	}
}

// What is kept is not mounted, and said.
func TestKeep(t *testing.T) {
	dir := desk(t)
	out, err := command(dir, "--solve", "--keep", "links").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, kept, _ := strings.Cut(string(out), "rm -rf ")
	kept = strings.TrimSpace(kept)
	if _, err := os.Stat(kept + "/upper/bin/box"); err != nil || filepath.Dir(kept) != dir {
		t.Errorf("%v\n%s", err, out)
	}
	if err := os.RemoveAll(kept); err != nil {
		t.Error(err)
	}
}

// Without a terminal there is no shell.
func TestNoTerminal(t *testing.T) {
	out, err := command(desk(t), "layers").CombinedOutput()
	if harness.ExitCode(err) != 2 || !strings.Contains(string(out), "plyfs lab --solve layers") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("%v: %s", err, out)
	}
}
