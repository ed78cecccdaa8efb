package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plyfs/plyfs/cow/bench/rig"
	"github.com/plyfs/plyfs/cow/bench/sample"
)

// Result is one case on one peer. Durations are in nanoseconds.
type Result struct {
	Case       *Case          `json:"case"`
	Peer       string         `json:"peer"`
	Latency    sample.Summary `json:"latency_ns"`    // per file
	Copied     sample.Summary `json:"written_bytes"` // dirtied on the way, the asked bytes included; not on tmpfs
	Upper      sample.Summary `json:"upper_bytes"`   // space the upper takes, directories included
	Flushes    sample.Summary `json:"flushes"`       // of the disk; of loop images only
	Collateral sample.Summary `json:"collateral_ns"` // longest open and read of another file meanwhile
	Usual      sample.Summary `json:"usual_ns"`      // how long 99 of 100 of these took at most
	Settle     sample.Summary `json:"settle_ns"`     // per file: completing what was left unfinished
	// WarmUp says that there was no time for more than the round that else only warms up.
	WarmUp    bool   `json:"warm_up,omitempty"`
	Err       string `json:"error,omitempty"`
	latencies []float64
}

// Report is a whole run.
type Report struct {
	Machine    rig.Machine `json:"machine"`
	Filesystem string      `json:"filesystem"`
	Rounds     int         `json:"rounds"` // at most: see Options.Deadline
	Peers      []string    `json:"peers"`
	Missing    []string    `json:"missing,omitempty"` // peers and cases that were left out, and why
	Results    []*Result   `json:"results"`
	Verdicts   []Verdict   `json:"targets,omitempty"`
}

// Interrupted is the error of a run that was ended before its end.
type Interrupted struct{ Cases, Of int }

func (e *Interrupted) Error() string {
	return fmt.Sprintf("interrupted: %d of %d cases were measured", e.Cases, e.Of)
}

// Run measures in a place. When ctx ends it returns what it has of complete rounds, and [*Interrupted].
func Run(ctx context.Context, at Place, peers []*rig.Peer, o Options) (*Report, error) {
	if o.Rounds <= 0 {
		o.Rounds = 5
		if o.Quick {
			o.Rounds = 2
		}
	}
	rep := &Report{Machine: rig.Describe(nil), Rounds: o.Rounds, Filesystem: "host"}
	if at.Image != nil {
		rep.Filesystem = at.Image.Type
	}
	jobs, err := o.plan(rep.Filesystem, at.Apart != "", peers)
	if err != nil {
		return nil, err
	}
	if at.User {
		jobs = rep.withoutRoot(jobs)
	}
	if jobs = rep.choose(jobs, peers); len(jobs) == 0 {
		return nil, fmt.Errorf("nothing to measure: %s", strings.Join(rep.Missing, "; "))
	}
	r := &runner{Place: at, made: map[string]bool{}}
	err = r.all(ctx, jobs, &o)
	complete := 0
	for _, j := range jobs {
		results := j.results()
		rep.Results = append(rep.Results, results...)
		if len(results) > 0 {
			complete++
		}
	}
	rep.Verdicts = rep.Targets()
	if err != nil && ctx.Err() != nil {
		err = &Interrupted{complete, len(jobs)}
	}
	return rep, err
}

// withoutRoot leaves out the jobs that need root.
func (rep *Report) withoutRoot(jobs []*job) []*job {
	var groups []string
	jobs = slices.DeleteFunc(jobs, func(j *job) bool {
		if !j.Cold && j.Case.all == nil {
			return false
		}
		name := j.Group
		if j.Case.all != nil { // of a group of which the others do not need it
			name = j.title()
		}
		if !slices.Contains(groups, name) {
			groups = append(groups, name)
		}
		return true
	})
	for _, g := range groups {
		rep.Missing = append(rep.Missing, g+": needs root")
	}
	return jobs
}

// choose leaves out the peers that cannot be used here, and the jobs that have no other.
func (rep *Report) choose(jobs []*job, peers []*rig.Peer) []*job {
	for _, p := range peers {
		is := func(q *rig.Peer) bool { return q == p }
		if !slices.ContainsFunc(jobs, func(j *job) bool { return slices.ContainsFunc(j.peers, is) }) {
			continue
		}
		err := p.Check()
		if err == nil {
			rep.Peers = append(rep.Peers, p.Name)
			continue
		}
		rep.Missing = append(rep.Missing, fmt.Sprintf("%s: %v", p.Name, err))
		for _, j := range jobs {
			j.peers = slices.DeleteFunc(j.peers, is)
		}
	}
	return slices.DeleteFunc(jobs, func(j *job) bool { return len(j.peers) == 0 })
}

// job is a case with the peers that are measured, and what was found.
type job struct {
	*Case
	peers         []*rig.Peer
	first, rounds int       // round 0 warms up
	warm, counted []samples // of round 0, and of the others, by peer; of complete rounds
	errs          []error
	measured      bool // at least one round is complete
}

// all does the rounds of all jobs: one job after the other, or, when there is a deadline, a round of each before the next round,
// so that what the time is too short for are rounds and not cases. The cases that empty the caches come last then:
// what they leave is no condition for others.
func (r *runner) all(ctx context.Context, jobs []*job, o *Options) error {
	batches := slices.Collect(slices.Chunk(jobs, 1))
	now := o.now
	if now == nil {
		now = time.Now
	}
	start := now()
	if !o.Deadline.IsZero() {
		warm := slices.DeleteFunc(slices.Clone(jobs), func(j *job) bool { return j.Cold })
		cold := slices.DeleteFunc(slices.Clone(jobs), func(j *job) bool { return !j.Cold })
		batches = [][]*job{warm, cold}
	}
	total, done, before := 0, 0, 0
	for _, j := range jobs {
		total += len(j.peers) * (j.rounds + 1 - j.first)
	}
	for _, batch := range batches {
		before += len(batch)
		// Each batch ends at its part of the time.
		until := start.Add(o.Deadline.Sub(start) * time.Duration(before) / time.Duration(len(jobs)))
		last := 0
		for _, j := range batch {
			last = max(last, j.rounds)
		}
		for round := 0; round <= last; round++ {
			for _, j := range batch {
				if round < j.first || round > j.rounds {
					continue
				}
				step := func() {
					if done++; o.Progress != nil {
						o.Progress(done, total, j.title())
					}
				}
				if late := !o.Deadline.IsZero() && !now().Before(until); late && j.measured {
					for range j.peers {
						step()
					}
				} else if err := r.round(ctx, j, round, late, !o.Deadline.IsZero(), step); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// round is one round of a job, the peers in turns; of one peer only when it is late. What it finds counts only
// when it is complete.
func (r *runner) round(ctx context.Context, j *job, round int, late, timed bool, step func()) error {
	lower, err := r.lower(j.Case)
	if err != nil {
		return err
	}
	turns := make([]int, len(j.peers))
	for i := range turns {
		turns[i] = (i + round) % len(turns)
	}
	if late {
		one := max(slices.IndexFunc(j.peers, func(p *rig.Peer) bool { return p.Name == "plyfs" }), 0)
		turns = []int{one}
	}
	// Completing may take longer than all the rest: once is enough. In the last round it comes in the way of the least,
	// but nobody knows which that is when there is a deadline.
	settle := j.settle && (round == j.rounds && !timed || round == j.first && timed)
	found := make([]samples, len(j.peers))
	errs := slices.Clone(j.errs)
	for k := range j.peers {
		if !slices.Contains(turns, k) {
			step()
		}
	}
	for _, k := range turns {
		if errs[k] == nil && ctx.Err() == nil {
			errs[k] = r.once(j.peers[k], j.Case, lower, settle, &found[k])
		}
		if errs[k] != nil && j.errs[k] == nil && Ended(ctx) || ctx.Err() != nil {
			return ctx.Err()
		}
		step()
	}
	into := j.counted
	if round == 0 {
		into = j.warm
	}
	for k := range found {
		into[k].add(&found[k])
	}
	j.errs, j.measured = errs, true
	return nil
}

// Ended says whether a failure is due to the interruption that ends ctx: whoever interrupts us interrupts the processes that we
// have started, too, and perhaps first.
func Ended(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	case <-time.After(200 * time.Millisecond):
		return false
	}
}

// results are what was measured: of the warm-up, where there was nothing else.
func (j *job) results() []*Result {
	if !j.measured {
		return nil
	}
	var out []*Result
	for i, p := range j.peers {
		all := j.counted[i]
		warm := len(all.latency) == 0
		if warm {
			all = j.warm[i]
		}
		if len(all.settle) == 0 {
			all.settle = j.warm[i].settle
		}
		if len(all.latency) == 0 && j.errs[i] == nil {
			continue // no time
		}
		res := &Result{Case: j.Case, Peer: p.Name, Latency: sample.Summarize(all.latency), Copied: sample.Summarize(all.copied),
			Upper: sample.Summarize(all.upper), Flushes: sample.Summarize(all.flushes), Collateral: sample.Summarize(all.collateral),
			Usual: sample.Summarize(all.usual), Settle: sample.Summarize(all.settle), WarmUp: warm, latencies: all.latency}
		if j.errs[i] != nil {
			res.Err = j.errs[i].Error()
		}
		out = append(out, res)
	}
	return out
}
