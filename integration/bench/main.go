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
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

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
	cell, code, err := rig.Enter(rig.CellOptions{Dir: o.dir, CPU: -1})
	if cell != nil {
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
		defer stop()
		if err = run(ctx, o, cell); err != nil {
			code = 1
		}
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
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
	f.StringVar(&o.json, "json", "", "write the results to `file`")
	f.StringVar(&o.plyfs, "plyfs", "", "the plyfs `binary`")
	f.StringSliceVar(&o.peers, "peers", nil, "measure only these: plain, kernel, fuse-overlayfs, unionfs-fuse, plyfs, plyfs-passthrough")
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
	var err error
	if o.rows, err = regexp.Compile(*rows); err != nil {
		return nil, fmt.Errorf("--rows: %w", err)
	}
	one := mode{name: "pinned", cpu: runtime.NumCPU() - 1}
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
	if o.rounds < 1 {
		return nil, fmt.Errorf("--rounds=%d: want at least one", o.rounds)
	}
	for _, path := range []*string{&o.plyfs, &o.json} {
		if *path != "" {
			if *path, err = filepath.Abs(*path); err != nil {
				return nil, err
			}
		}
	}
	return o, nil
}

func run(ctx context.Context, o *options, cell *rig.Cell) error {
	z := fullSizes
	if o.quick {
		z = quickSizes
	}
	list := scenarios(z)
	if o.list {
		for i := range list {
			for _, st := range list[i].steps {
				fmt.Printf("%s: %s\n", list[i].name, st.name)
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
	rig.TouchMemory(6 * z.data)
	for _, m := range o.modes {
		for i := range list {
			rows, err := l.run(ctx, &list[i], m, o.rows)
			if err != nil {
				return err
			}
			rep.Rows = append(rep.Rows, rows...)
		}
	}
	done()
	rep.summarize()
	if err := rep.print(os.Stdout, "plyfs"); err != nil {
		return err
	}
	if o.json != "" {
		if err := rep.writeJSON(o.json); err != nil {
			return err
		}
	}
	if rep.failures("plyfs") || rep.failures("plyfs-passthrough") {
		return errors.New("plyfs failed in some rows, see above")
	}
	return nil
}

// choosePeers takes the filesystems asked for that can be had here.
func (l *lab) choosePeers(o *options, rep *report) error {
	wanted := func(name string) bool {
		if len(o.peers) == 0 {
			return name != "unionfs-fuse" // slow by orders of magnitude in some rows
		}
		for _, p := range o.peers {
			if p == name {
				return true
			}
		}
		return false
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
		return fmt.Errorf("nothing to measure: %v", rep.Missing)
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
