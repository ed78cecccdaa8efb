package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/cow/bench"
	"github.com/plyfs/plyfs/cow/bench/rig"
	"github.com/plyfs/plyfs/cow/bench/sample"
)

// benchFlags are the flags of a benchmark.
type benchFlags struct {
	set                      *pflag.FlagSet
	quick, targets           *bool
	filesystem, dir, largest *string
	cases, peers             *string
	rounds, cpu              *int
	files                    *benchFiles
	custom                   func() (*bench.Custom, error)
}

func newBenchFlags(f *pflag.FlagSet) *benchFlags {
	return &benchFlags{
		set:        f,
		quick:      f.Bool("quick", false, "few sizes, and two rounds if there is time: ends in a minute, unless --rounds says how many"),
		filesystem: f.String("filesystem", "", "make one of "+strings.Join(rig.Filesystems, ", ")+" and measure on that"),
		dir:        f.String("dir", "", "where to work, else $TMPDIR or /tmp"),
		rounds:     f.Int("rounds", 0, "rounds, else 5"),
		largest:    f.String("largest", "", "no file larger than this, else 4G"),
		targets:    f.Bool("targets", false, "only what plyfs has promised, some minutes; see docs/copy-up.md"),
		cases:      f.String("cases", "", "only the cases whose \"group: name\" matches this regular expression"),
		peers:      f.String("peers", "", "only the filesystems whose names match this regular expression"),
		files:      benchFileFlags(f),
		cpu:        f.Int("cpu", -1, "run everything on this processor alone"),
		custom:     customFlags(f),
	}
}

// options returns what the flags ask for; the error is a usageError when that makes no sense, or leaves nothing to measure.
func (b *benchFlags) options(peers []*rig.Peer) (bench.Options, error) {
	o := bench.Options{Quick: *b.quick, Targets: *b.targets, Rounds: *b.rounds}
	var err error
	if o.Custom, err = b.custom(); err != nil {
		return o, usagef("bench: %w", err)
	}
	switch {
	case b.set.Changed("rounds") && *b.rounds < 1:
		return o, usagef("bench: --rounds: %d: want 1 or more", *b.rounds)
	case *b.targets && *b.quick:
		return o, usagef("bench: --targets and --quick: want one of them")
	case *b.targets && o.Custom != nil:
		return o, usagef("bench: --targets has cases of its own: want no --pattern, --size and the like with it")
	case *b.filesystem != "" && !slices.Contains(rig.Filesystems, *b.filesystem):
		return o, usagef("bench: --filesystem: %q: want one of %s", *b.filesystem, strings.Join(rig.Filesystems, ", "))
	}
	if *b.largest != "" {
		if o.Largest, err = sample.ParseBytes(*b.largest); err != nil {
			return o, usagef("bench: --largest: %w", err)
		}
		if o.Largest < 1 { // in Options 0 stands for the default
			return o, usagef("bench: --largest: %d: want 1 or more", o.Largest)
		}
	}
	for _, only := range []struct {
		flag, pattern string
		to            *func(string) bool
	}{{"cases", *b.cases, &o.Match}, {"peers", *b.peers, &o.Peer}} {
		if only.pattern == "" {
			continue
		}
		re, err := regexp.Compile(only.pattern)
		if err != nil {
			return o, usagef("bench: --%s: %w", only.flag, err)
		}
		*only.to = re.MatchString
	}
	if b.set.Changed("cpu") {
		if err := checkCPU(*b.cpu); err != nil {
			return o, err
		}
	}
	if err := o.Check(*b.filesystem, *b.filesystem != "", peers); err != nil {
		return o, usagef("bench: --%w", err) // it begins with the name of the option
	}
	return o, nil
}

// checkCPU says which processors there are when there is no such one.
func checkCPU(cpu int) error {
	there, err := rig.CPUs()
	if err != nil {
		return fmt.Errorf("bench: --cpu: %w", err)
	}
	if !slices.Contains(there, cpu) {
		return usagef("bench: --cpu: no processor %d to run on; there are %s", cpu, strings.Trim(strings.ReplaceAll(fmt.Sprint(there), " ", ", "), "[]"))
	}
	return nil
}
