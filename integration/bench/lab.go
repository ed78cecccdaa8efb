package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/plyfs/plyfs/cow/bench"
	"github.com/plyfs/plyfs/cow/bench/rig"
	"github.com/plyfs/plyfs/cow/bench/sample"
)

// stepLimit is how long one operation may take before its filesystem is given up for the scenario.
const stepLimit = 3 * time.Minute

// lab runs scenarios.
type lab struct {
	scratch string
	root    bool // may drop caches
	store   store
	peers   []*rig.Peer
	// ioPeers are further columns, for scenarios with io set.
	ioPeers []*rig.Peer
	rounds  int
	// budget is the time after which a scenario begins no further round; 0 is none.
	budget time.Duration
	say    func(format string, args ...any)
}

// mode is one way to place the processes.
type mode struct {
	name string
	cpu  int // below zero: anywhere
}

// run measures the steps of s that match in one mode. Rounds are interleaved: each filesystem has its
// turn in each round, and who begins rotates. When ctx ends it returns what there is of complete rounds, and the error of ctx.
func (l *lab) run(ctx context.Context, s *scenario, m mode, match *regexp.Regexp) ([]*row, error) {
	rows, last := s.rows(m, match)
	if last < 0 {
		return nil, nil
	}
	if s.cold && !l.root {
		return skipped(rows, "dropping caches needs root"), nil
	}
	d, err := l.store.get(s.data, s.make)
	if err != nil {
		return nil, err
	}
	peers := slices.Clone(l.peers)
	if s.io {
		peers = append(peers, l.ioPeers...)
	}
	if len(peers) == 0 {
		return nil, nil
	}
	failed := map[*rig.Peer]bool{}
	start := time.Now()
	for round := range l.rounds {
		if round > 0 && l.budget > 0 && time.Since(start) > l.budget {
			break
		}
		for turn := range peers {
			p := peers[(round+turn)%len(peers)]
			if failed[p] {
				continue
			}
			l.say("%s: %s, round %d, %s", m.name, s.name, round+1, p.Name)
			err := l.turn(ctx, s, d, p, m, rows[:last+1])
			if err != nil && bench.Ended(ctx) || ctx.Err() != nil {
				return complete(rows, round), ctx.Err()
			}
			if err != nil {
				failed[p] = true
				for _, r := range rows {
					r.result(p.Name).Err = err.Error()
				}
			}
		}
	}
	return slices.DeleteFunc(rows, func(r *row) bool { return !r.wanted }), nil
}

// complete takes from rows what was measured in the round of this number, which was not completed, and the rows that nothing is left of.
func complete(rows []*row, round int) []*row {
	return slices.DeleteFunc(rows, func(r *row) bool {
		for _, res := range r.Results {
			res.Samples = res.Samples[:min(len(res.Samples), round)]
		}
		return !r.wanted || round == 0
	})
}

// turn gives one filesystem one round: mount, the steps, unmount.
func (l *lab) turn(ctx context.Context, s *scenario, d *data, p *rig.Peer, m mode, rows []*row) (err error) {
	dir := filepath.Join(l.scratch, "turn")
	defer func() {
		if e := os.RemoveAll(dir); e != nil && err == nil {
			err = e
		}
	}()
	stack := &rig.Stack{Lowers: d.lowers, Upper: dir + "/upper", Work: dir + "/work", Plain: dir + "/plain"}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	switch {
	case p.Mounts():
	case s.ownPlain:
		if out, err := exec.Command("cp", "-a", d.plain, stack.Plain).CombinedOutput(); err != nil {
			return fmt.Errorf("cp: %w: %s", err, out)
		}
	case d.count == 0:
		if err := os.Mkdir(stack.Plain, 0o755); err != nil {
			return err
		}
	default:
		stack.Plain = d.plain
	}
	if s.cold {
		if err := rig.DropCaches(); err != nil {
			return err
		}
	}
	var mnt *rig.Mount
	if err := pinned(m.cpu, func() (err error) {
		mnt, err = p.Mount(stack, dir+"/mnt")
		return err
	}); err != nil {
		return err
	}
	defer func() {
		if err == nil {
			err = mnt.Close()
			return
		}
		mnt.Abandon()
	}()
	w, err := startWorker(m.cpu)
	if err != nil {
		return err
	}
	defer w.kill()
	defer context.AfterFunc(ctx, w.kill)()
	if s.cold { // read in the programs themselves, but nothing of the view
		for i := range s.steps {
			if r := s.steps[i].req(d); r.Op == "exec" {
				w.do(&request{Op: "exec", Dir: "/", Argv: []string{r.Argv[0], "--version"}}, stepLimit)
			}
		}
	}
	for i := range rows {
		if err := l.measure(rows[i], &s.steps[i], d, p, mnt, w); err != nil {
			return fmt.Errorf("%s: %w", s.steps[i].name, err)
		}
	}
	return nil
}

// measure does one step.
func (l *lab) measure(r *row, st *step, d *data, p *rig.Peer, mnt *rig.Mount, w *worker) error {
	res := r.result(p.Name)
	switch st.kind {
	case kindMount:
		if p.Mounts() {
			res.add(float64(mnt.Took))
		}
	case kindMemory:
		if p.Daemon {
			res.add(float64(mnt.Memory()))
		}
	case kindForget:
		if !p.Daemon || !l.root {
			return nil
		}
		if err := rig.DropCaches(); err != nil {
			return err
		}
		// Forgetting is told to the daemon in the background, and a
		// collected heap takes a while to go back.
		least := mnt.Memory()
		for range 30 {
			time.Sleep(100 * time.Millisecond)
			least = min(least, mnt.Memory())
		}
		res.add(float64(least))
	default:
		req := st.req(d)
		req.Dir = mnt.Dir
		ns, err := w.do(&req, stepLimit)
		if err != nil {
			return err
		}
		res.add(ns / float64(max(st.per, 1)))
	}
	return nil
}

// rows makes an empty row for each step, and says which is the last one wanted;
// below zero for none.
func (s *scenario) rows(m mode, match *regexp.Regexp) (rows []*row, last int) {
	last = -1
	for i := range s.steps {
		st := &s.steps[i]
		r := &row{Scenario: s.name, Step: st.name, Mode: m.name, Unit: "ns", Results: map[string]*result{}}
		if st.kind == kindMemory || st.kind == kindForget {
			r.Unit = "bytes"
		}
		if r.wanted = match.MatchString(s.rowName(i)); r.wanted {
			last = i
		}
		rows = append(rows, r)
	}
	return rows, last
}

func skipped(rows []*row, why string) []*row {
	for _, r := range rows {
		r.Skipped = why
	}
	return slices.DeleteFunc(rows, func(r *row) bool { return !r.wanted })
}

// row is one line of the table: a step in one mode on every filesystem.
type row struct {
	Scenario string             `json:"scenario"`
	Step     string             `json:"step"`
	Mode     string             `json:"mode"`
	Unit     string             `json:"unit"` // "ns" for one operation, or "bytes"
	Skipped  string             `json:"skipped,omitempty"`
	Results  map[string]*result `json:"results"` // by name of the filesystem

	wanted bool
}

func (r *row) result(peer string) *result {
	if r.Results[peer] == nil {
		r.Results[peer] = &result{}
	}
	return r.Results[peer]
}

// result is what was measured for one filesystem.
type result struct {
	Samples []float64      `json:"samples"`
	Summary sample.Summary `json:"summary"`
	// ToKernel and ToFuseOverlayfs compare medians; absent where there is nothing to compare.
	ToKernel        *float64 `json:"to_kernel,omitempty"`
	ToFuseOverlayfs *float64 `json:"to_fuse_overlayfs,omitempty"`
	Err             string   `json:"error,omitempty"`
}

func (r *result) add(x float64) { r.Samples = append(r.Samples, x) }
