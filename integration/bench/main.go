// Command bench compares plyfs with a plain directory, with the kernel's
// overlayfs and with fuse-overlayfs, in one run and in turns.
//
// Absolute times say little: they belong to one machine and one hour. What
// carries over are ratios between medians of interleaved rounds. Each row is
// measured twice: with client and daemon on one processor, which shows what an implementation itself
// costs, and free, which adds the price of waking another processor.
//
// The client is a process of its own (worker.go). What it does is listed in
// scenarios.go; a scenario is one fresh mount and the steps done on it, each
// step a row. Everything happens in namespaces and a scratch directory that are
// gone afterwards, however the program ends (see package rig).
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/plyfs/plyfs/cow/bench/outfile"
	"github.com/plyfs/plyfs/cow/bench/rig"
)

// options are the command line.
type options struct {
	quick  bool
	rows   *regexp.Regexp
	modes  []mode
	json   string
	plyfs  string
	peers  []string
	rounds int
	dir    string
	list   bool
	verb   bool
}

var peerNames = []string{"plain", "kernel", "fuse-overlayfs", "unionfs-fuse", "plyfs", "plyfs-passthrough"}

// quickBudget is how long a scenario of --quick may begin rounds.
const quickBudget = 1200 * time.Millisecond

func main() {
	if os.Getenv(workerVariable) != "" {
		if err := serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench worker:", err)
			os.Exit(1)
		}
		return
	}
	o, err := parse(os.Args[1:])
	if err == pflag.ErrHelp {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	var results *outfile.File
	if o.json != "" { // before hours of measuring
		if results, err = outfile.Check(o.json); err != nil {
			fmt.Fprintln(os.Stderr, "bench: --json:", err)
			os.Exit(1)
		}
	}
	cell, code, err := rig.Enter(rig.CellOptions{Dir: o.dir, CPU: -1})
	if cell != nil {
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
		defer stop()
		if err = run(ctx, o, cell, results); err != nil {
			code = 1
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	os.Exit(code)
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	f.SortFlags = false
	f.BoolVar(&o.quick, "quick", false, "small data and few rounds: about two minutes")
	rows := f.String("rows", ".", "measure only rows matching `regexp` (\"scenario: step\")")
	pin := f.String("pin", "both", "client and daemon on one processor: yes, no, both")
	f.Lookup("pin").NoOptDefVal = "yes"
	f.StringVar(&o.json, "json", "", "write the results to `file`, when all is measured")
	f.StringVar(&o.plyfs, "plyfs", "", "the plyfs `binary`")
	f.StringSliceVar(&o.peers, "peers", nil, "measure only these: "+strings.Join(peerNames, ", "))
	f.IntVar(&o.rounds, "rounds", 5, "rounds per scenario")
	f.StringVar(&o.dir, "dir", "", "`directory` for scratch files (default: $TMPDIR or /tmp)")
	f.BoolVar(&o.list, "list", false, "print the names of the rows, measure nothing")
	f.BoolVarP(&o.verb, "verbose", "v", false, "say what is being done, one line each")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if f.Changed("rounds") && o.rounds < 1 {
		return nil, fmt.Errorf("--rounds: %d: want 1 or more", o.rounds)
	}
	var err error
	if o.rows, err = regexp.Compile(*rows); err != nil {
		return nil, fmt.Errorf("--rows: %w", err)
	}
	cpus, err := rig.CPUs()
	if err != nil {
		return nil, err
	}
	one := mode{name: "pinned", cpu: cpus[len(cpus)-1]}
	free := mode{name: "unpinned", cpu: -1}
	switch *pin {
	case "yes":
		o.modes = []mode{one}
	case "no":
		o.modes = []mode{free}
	case "both":
		o.modes = []mode{one, free}
	default:
		return nil, fmt.Errorf("--pin=%s: want yes, no or both", *pin)
	}
	for _, name := range o.peers {
		if !slices.Contains(peerNames, name) {
			return nil, fmt.Errorf("--peers: no %q; there are %s", name, strings.Join(peerNames, ", "))
		}
	}
	if o.plyfs != "" {
		if o.plyfs, err = filepath.Abs(o.plyfs); err == nil {
			_, err = os.Stat(o.plyfs)
		}
		if err != nil {
			return nil, fmt.Errorf("--plyfs: %w; make build makes it", err)
		}
	}
	return o, o.matchRows()
}

// matchRows fails when no row is wanted.
func (o *options) matchRows() error {
	var all []string
	for _, s := range scenarios(o.sizes()) {
		for i := range s.steps {
			if o.rows.MatchString(s.rowName(i)) {
				return nil
			}
		}
		all = append(all, s.name)
	}
	return fmt.Errorf("--rows: none matches; there are steps of %s (--list prints them)", strings.Join(all, ", "))
}

func (o *options) sizes() sizes {
	if o.quick {
		return quickSizes
	}
	return fullSizes
}

func run(ctx context.Context, o *options, cell *rig.Cell, results *outfile.File) error {
	list := scenarios(o.sizes())
	if o.list {
		for i := range list {
			for k := range list[i].steps {
				if name := list[i].rowName(k); o.rows.MatchString(name) {
					fmt.Println(name)
				}
			}
		}
		return nil
	}
	progress, done := progressLine(o.verb)
	defer done()
	l := &lab{scratch: cell.Scratch, root: cell.Root, rounds: o.rounds, say: progress,
		store: store{dir: filepath.Join(cell.Scratch, "data"), made: map[string]*data{}}}
	if o.quick {
		l.budget = quickBudget
	}
	rep := &report{Quick: o.quick, Missing: map[string]string{}}
	if err := l.choosePeers(o, rep); err != nil {
		return err
	}
	rep.Machine = rig.Describe(versions(o, rep.Peers))
	progress("touching memory")
	rig.TouchMemory(6 * o.sizes().data)
	err := l.all(ctx, o, list, rep)
	if err != nil && ctx.Err() == nil {
		return err
	}
	done()
	if err == nil && len(rep.Rows) == 0 {
		return fmt.Errorf("nothing to measure: %s have no part in these rows", strings.Join(rep.Peers, ", "))
	}
	rep.summarize()
	if results == nil || !results.Standard() || err != nil {
		if e := rep.print(os.Stdout, "plyfs"); e != nil {
			return e
		}
	}
	if err != nil {
		return errors.New("interrupted: what was measured until then is above")
	}
	if results != nil {
		if err := results.Write(rep.writeJSON); err != nil {
			return err
		}
	}
	if rep.failures("plyfs") || rep.failures("plyfs-passthrough") {
		return errors.New("plyfs failed in some rows, see above")
	}
	return nil
}

// all measures everything, as far as it gets.
func (l *lab) all(ctx context.Context, o *options, list []scenario, rep *report) error {
	for _, m := range o.modes {
		for i := range list {
			rows, err := l.run(ctx, &list[i], m, o.rows)
			rep.Rows = append(rep.Rows, rows...)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// choosePeers takes the filesystems asked for that can be had here.
func (l *lab) choosePeers(o *options, rep *report) error {
	wanted := func(name string) bool {
		if len(o.peers) == 0 {
			return name != "unionfs-fuse" // slow by orders of magnitude in some rows
		}
		return slices.Contains(o.peers, name)
	}
	take := func(p *rig.Peer, list *[]*rig.Peer) {
		if !wanted(p.Name) {
			return
		}
		if err := p.Check(); err != nil {
			rep.Missing[p.Name] = err.Error()
			return
		}
		*list = append(*list, p)
	}
	take(rig.Plain(), &l.peers)
	take(rig.Kernel("kernel"), &l.peers)
	take(rig.FuseOverlayfs(), &l.peers)
	take(rig.UnionfsFuse(), &l.peers)
	take(rig.Plyfs("plyfs", o.plyfs), &l.peers)
	take(rig.Plyfs("plyfs-passthrough", o.plyfs, "--mode", "passthrough"), &l.ioPeers)
	for _, p := range append(l.peers[:len(l.peers):len(l.peers)], l.ioPeers...) {
		rep.Peers = append(rep.Peers, p.Name)
	}
	if len(rep.Peers) == 0 {
		var why []string
		for _, name := range slices.Sorted(maps.Keys(rep.Missing)) {
			why = append(why, name+": "+rep.Missing[name])
		}
		return fmt.Errorf("nothing to measure: %s", strings.Join(why, "; "))
	}
	return nil
}

func versions(o *options, peers []string) map[string][]string {
	v := map[string][]string{}
	for _, p := range peers {
		switch p {
		case "fuse-overlayfs":
			v[p] = []string{p, "--version"}
		case "unionfs-fuse":
			v[p] = []string{"unionfs", "--version"}
		case "plyfs":
			v[p] = []string{o.plyfs, "version"}
		}
	}
	return v
}

// progressLine returns a function that shows what is being done: in one line that
// is overwritten on a terminal, as lines when verbose, else not at all.
func progressLine(verbose bool) (say func(string, ...any), done func()) {
	switch {
	case verbose:
		start := time.Now()
		return func(format string, args ...any) {
			fmt.Fprintf(os.Stderr, "%6.1f s  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
		}, func() {}
	case term.IsTerminal(int(os.Stderr.Fd())):
		return func(format string, args ...any) {
			line := fmt.Sprintf(format, args...)
			fmt.Fprintf(os.Stderr, "\r%-78s", line[:min(len(line), 78)])
		}, func() { fmt.Fprintf(os.Stderr, "\r%s\r", strings.Repeat(" ", 78)) }
	}
	return func(string, ...any) {}, func() {}
}
