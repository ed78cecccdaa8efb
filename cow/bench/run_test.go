package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/cow/bench/rig"
)

func init() { strangersCount = 100 }

// plains are peers that need no mount, under these names.
func plains(names ...string) []*rig.Peer {
	var out []*rig.Peer
	for _, name := range names {
		p := rig.Plain()
		p.Name = name
		out = append(out, p)
	}
	return out
}

// small are four cases of files of 4 KiB; the third has cold caches, which a test has no business to make.
func small(t *testing.T) Options {
	t.Helper()
	dropCaches = func() error { return nil }
	t.Cleanup(func() { dropCaches = rig.DropCaches })
	o := Options{Rounds: 2, Match: func(name string) bool {
		return slices.Contains([]string{"write 1 byte: 4 KiB", "chmod: 4 KiB", "cold caches, write 1 byte: 4 KiB", "layers: 20"}, name)
	}}
	if cases, err := Cases(&o, "host"); err != nil || len(cases) != 4 || !cases[2].Cold {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	return o
}

// counts says how many rounds each result is of.
func counts(rep *Report) (out []string) {
	for _, r := range rep.Results {
		n := fmt.Sprintf("%s, %s: %d", r.Case.title(), r.Peer, r.Latency.N)
		if r.WarmUp {
			n += " (warm-up)"
		}
		if r.Err != "" {
			n += " " + r.Err
		}
		out = append(out, n)
	}
	return out
}

// When there is no time at all each case is measured once, on the peer that it is about.
func TestTooLate(t *testing.T) {
	o := small(t)
	o.Deadline = time.Now().Add(-time.Hour)
	dir := t.TempDir()
	rep, err := Run(context.Background(), Place{Dir: dir}, plains("plain", "plyfs", "other"), o)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range rep.Results {
		if r.Peer != "plyfs" || r.Latency.N != 1 || r.WarmUp == r.Case.Cold {
			t.Errorf("%s", counts(rep)[i])
		}
	}
	if len(rep.Results) != 4 {
		t.Errorf("%q", counts(rep))
	}
	var table, page bytes.Buffer
	if err := errors.Join(rep.WriteTable(&table), rep.WriteHTML(&page)); err != nil {
		t.Fatal(err)
	}
	const said = "1 of 2 rounds, as there was time; 3 of 4 figures are of the warm-up"
	if !strings.Contains(table.String(), "not everything was measured 2 times: "+said) || !strings.Contains(page.String(), "Medians of "+said) {
		t.Errorf("it does not say so:\n%s", table.String())
	}
}

// With a deadline every case has a round before one has its second, and the cold ones come last; what there is no time for
// are rounds. Without one, case after case is done.
func TestInTime(t *testing.T) {
	for _, c := range []struct {
		name     string
		deadline time.Duration // each look at the clock takes a second
		turns    string        // first letters of the cases, in the order in which they are done or left out
		counts   []int
	}{
		{"none", 0, "wwwccccclll", []int{2, 2, 2, 2}},
		{"late", time.Hour, "wclwclwclcc", []int{2, 2, 2, 2}},
		// Three quarters of the time are for three of the cases: a round to warm up, and another of w and c.
		{"early", 8 * time.Second, "wclwclwclcc", []int{1, 1, 1, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := small(t)
			clock := time.Unix(0, 0)
			if c.deadline > 0 {
				o.Deadline = clock.Add(c.deadline)
			}
			o.now = func() time.Time { clock = clock.Add(time.Second); return clock }
			turns := ""
			o.Progress = func(done, total int, what string) {
				if turns += what[:1]; done != len(turns) || total != len(c.turns) {
					t.Errorf("%d of %d at %q", done, total, turns)
				}
			}
			rep, err := Run(context.Background(), Place{Dir: t.TempDir()}, plains("plain"), o)
			if err != nil {
				t.Fatal(err)
			}
			var got []int
			for i, r := range rep.Results {
				got = append(got, r.Latency.N)
				if r.WarmUp != (c.name == "early" && i == 3) {
					t.Errorf("%q", counts(rep))
				}
			}
			if turns != c.turns || !slices.Equal(got, c.counts) {
				t.Errorf("%q %v, want %q %v", turns, got, c.turns, c.counts)
			}
		})
	}
}

// Who interrupts a run gets what is complete, no more, and an error that says so.
func TestInterruptedRun(t *testing.T) {
	for after, want := range map[int][]string{
		1: nil, // in the warm-up
		2: {"write 1 byte: 4 KiB, a: 1 (warm-up)", "write 1 byte: 4 KiB, b: 1 (warm-up)"},
		5: {"write 1 byte: 4 KiB, a: 1", "write 1 byte: 4 KiB, b: 1"},
		7: {"write 1 byte: 4 KiB, a: 2", "write 1 byte: 4 KiB, b: 2"},
	} {
		o := small(t)
		ctx, stop := context.WithCancel(context.Background())
		o.Progress = func(done, _ int, _ string) {
			if done == after {
				stop()
			}
		}
		dir := t.TempDir()
		rep, err := Run(ctx, Place{Dir: dir}, plains("a", "b"), o)
		var interrupted *Interrupted
		if !errors.As(err, &interrupted) || interrupted.Of != 4 || interrupted.Cases != len(want)/2 {
			t.Errorf("after %d: %v", after, err)
		}
		if got := counts(rep); !slices.Equal(got, want) {
			t.Errorf("after %d: %q, want %q", after, got, want)
		}
		if _, err := os.Stat(dir + "/turn"); err == nil {
			t.Errorf("after %d a turn is left", after)
		}
		if err := rep.WriteTable(&bytes.Buffer{}); err != nil {
			t.Error(err)
		}
	}
}

// What leaves nothing to measure is an error that says what there is.
func TestNothingToMeasure(t *testing.T) {
	none := func(string) bool { return false }
	is := func(name string) func(string) bool { return func(s string) bool { return s == name } }
	all := plains("plain", "kernel", "plyfs-range", "plyfs-copy")
	for _, c := range []struct {
		o            Options
		option, said string
	}{
		{Options{Match: none}, "cases", "append 1 byte: 4 KiB | 16 KiB | 64 KiB"},
		{Options{Match: none, Quick: true}, "cases", "write 1 byte: 4 KiB | 64 KiB | 1 MiB"},
		{Options{Match: none, Targets: true}, "cases", "chown -R: 20000 files | 20000 files, volatile"},
		{Options{Match: none, Custom: &Custom{}}, "cases", "overwrite 1 B at 0: 1 MiB"},
		{Options{Largest: 1}, "largest", "as small"},
		{Options{Peer: none}, "peers", "plain, kernel, plyfs-range, plyfs-copy"},
		{Options{Peer: is("kernel"), Match: is("whole or by range: 4 KiB")}, "peers", "kernel: in none of the cases; there are plyfs-range, plyfs-copy"},
		{Options{Custom: &Custom{Apart: true}}, "filesystem", "ext4"},
	} {
		var wrong *OptionError
		if err := c.o.Check("host", false, all); !errors.As(err, &wrong) || wrong.Option != c.option || !strings.Contains(err.Error(), c.said) {
			t.Errorf("%v, want %s: %s", err, c.option, c.said)
		}
		if _, err := Run(context.Background(), Place{Dir: t.TempDir()}, all, c.o); !errors.As(err, &wrong) {
			t.Errorf("%v", err)
		}
	}
	if err := (&Options{}).Check("host", false, all); err != nil {
		t.Error(err)
	}
	// A peer that is not here is no fault of the options, but nothing either.
	if _, err := Run(context.Background(), Place{Dir: t.TempDir()}, []*rig.Peer{rig.Plyfs("plyfs", "/nonexistent")}, small(t)); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("%v", err)
	}
}

// What needs root is left out for others, with one line.
func TestWithoutRoot(t *testing.T) {
	o := small(t)
	match := o.Match
	o.Match = func(name string) bool { return match(name) || name == "many small files: chown -R" }
	rep, err := Run(context.Background(), Place{Dir: t.TempDir(), User: true}, plains("plain"), o)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"cold caches, write 1 byte: needs root", "many small files: chown -R: needs root"}; !slices.Equal(rep.Missing, want) || len(rep.Results) != 3 {
		t.Errorf("%q, %q", rep.Missing, counts(rep))
	}
	o.Custom, o.Match = &Custom{Patterns: []string{"chown"}}, nil
	if _, err := Run(context.Background(), Place{Dir: t.TempDir(), User: true}, plains("plain"), o); err == nil || !strings.Contains(err.Error(), "nothing to measure: chown -R: 1 MiB: needs root") {
		t.Errorf("%v", err)
	}
}
