package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/cow/bench/rig"
)

// What makes no sense is said before anything is measured, with what there is instead.
func TestParse(t *testing.T) {
	for line, want := range map[string]string{
		"--rows nothing":         "--rows: none matches; there are steps of find, find attr, stat",
		"--rows (":               "--rows: error parsing regexp",
		"--peers plain,nobody":   `--peers: no "nobody"; there are plain, kernel`,
		"--rounds 0":             "--rounds: 0: want 1 or more",
		"--rounds -3":            "--rounds: -3: want 1 or more",
		"--pin=maybe":            "want yes, no or both",
		"--plyfs /nonexistent/p": "--plyfs: stat /nonexistent/p: no such file or directory",
		"more":                   `unexpected argument "more"`,
	} {
		if _, err := parse(strings.Fields(line)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
	o, err := parse([]string{"--quick", "--rows", "^find: names, first$", "--pin", "--peers", "plain,kernel"})
	if err != nil || len(o.modes) != 1 {
		t.Fatal(err)
	}
	if cpus, err := rig.CPUs(); err != nil || !slices.Contains(cpus, o.modes[0].cpu) {
		t.Errorf("pinned to %d of %v, %v", o.modes[0].cpu, cpus, err)
	}
}

// Of an interrupted round nothing counts.
func TestComplete(t *testing.T) {
	rows := func() []*row {
		return []*row{
			{Step: "a", wanted: true, Results: map[string]*result{"x": {Samples: []float64{1, 2, 3}}, "y": {Samples: []float64{1, 2}}}},
			{Step: "b", Results: map[string]*result{"x": {Samples: []float64{1, 2, 3}}}},
			{Step: "c", wanted: true, Results: map[string]*result{}},
		}
	}
	got := complete(rows(), 2)
	if len(got) != 2 || got[1].Step != "c" || len(got[0].Results["x"].Samples) != 2 || len(got[0].Results["y"].Samples) != 2 {
		t.Errorf("%+v", got)
	}
	if got := complete(rows(), 0); len(got) != 0 {
		t.Errorf("%+v of no round", got)
	}
}

// A round may end before the step that takes away what an earlier one made: the plain directory of the next must not have it.
func TestOwnPlain(t *testing.T) {
	for _, s := range scenarios(quickSizes) {
		for _, st := range s.steps {
			if st.req == nil {
				continue
			}
			switch op := st.req(&data{}).Op; op {
			case "create", "rename", "unlink", "mkdir", "append", "chmod", "truncate":
				if !s.ownPlain && s.data != "empty" {
					t.Errorf("%s: %s changes the tree of others", s.name, op)
				}
			}
		}
	}
}
