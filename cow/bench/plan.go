package bench

import (
	"fmt"
	"slices"
	"strings"

	"github.com/plyfs/plyfs/cow/bench/rig"
)

// OptionError is a fault in [Options] and [Custom]: Option is called as the flag of plyfs bench is.
type OptionError struct{ Option, Why string }

func (e *OptionError) Error() string { return e.Option + ": " + e.Why }

func wrong(option, format string, args ...any) error {
	return &OptionError{option, fmt.Sprintf(format, args...)}
}

// Check says whether the options make sense and leave anything to measure, for an upper on a filesystem of a type, with
// layers on another one (apart) or without. What it returns is an [*OptionError].
func (o *Options) Check(filesystem string, apart bool, peers []*rig.Peer) error {
	_, err := o.plan(filesystem, apart, peers)
	return err
}

// plan returns the cases with the peers that are to be measured.
func (o *Options) plan(filesystem string, apart bool, peers []*rig.Peer) ([]*job, error) {
	cases, err := Cases(o, filesystem)
	if err != nil {
		return nil, err
	}
	if len(cases) == 0 {
		return nil, o.noCase(filesystem)
	}
	if !apart && !slices.ContainsFunc(cases, func(c *Case) bool { return !c.Apart }) {
		return nil, wrong("filesystem", "needed where the layers are on another filesystem than the upper: one of %s", strings.Join(rig.Filesystems, ", "))
	}
	chosen := slices.DeleteFunc(slices.Clone(peers), func(p *rig.Peer) bool { return o.Peer != nil && !o.Peer(p.Name) })
	if len(chosen) == 0 {
		return nil, wrong("peers", "none matches; there are %s", names(peers))
	}
	var jobs []*job
	var others []*rig.Peer // that could take part, too
	for _, c := range cases {
		if c.Apart && !apart {
			continue
		}
		j := &job{Case: c, rounds: o.Rounds}
		if c.Cold { // nothing to warm up
			j.first = 1
		}
		if c.rounds > 0 {
			j.first, j.rounds = 1, c.rounds
		}
		for _, p := range peers {
			switch {
			case !c.takesPart(p.Name):
			case slices.Contains(chosen, p):
				j.peers = append(j.peers, p)
			case !slices.Contains(others, p):
				others = append(others, p)
			}
		}
		if n := len(j.peers); n > 0 {
			j.warm, j.counted, j.errs = make([]samples, n), make([]samples, n), make([]error, n)
			jobs = append(jobs, j)
		}
	}
	if len(jobs) == 0 {
		return nil, wrong("peers", "%s: in none of the cases; there are %s", names(chosen), names(others))
	}
	return jobs, nil
}

func names(peers []*rig.Peer) string {
	var out []string
	for _, p := range peers {
		out = append(out, p.Name)
	}
	return strings.Join(out, ", ")
}

// noCase says which cases there would have been.
func (o *Options) noCase(filesystem string) error {
	every := *o
	every.Match = nil
	all, err := Cases(&every, filesystem)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return wrong("largest", "no case has only files as small as that")
	}
	var list strings.Builder
	last := ""
	for _, c := range all {
		switch {
		case c.Group == last:
			list.WriteString(" | " + c.Name) // there are commas in names
		case last != "":
			list.WriteString("; " + c.title())
		default:
			list.WriteString(c.title())
		}
		last = c.Group
	}
	return wrong("cases", "none matches; there are %s", list.String())
}
