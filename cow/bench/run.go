package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow/bench/rig"
	"github.com/plyfs/plyfs/cow/bench/sample"
)

// Result is one case on one peer. Durations are in nanoseconds.
type Result struct {
	Case       *Case          `json:"case"`
	Peer       string         `json:"peer"`
	Latency    sample.Summary `json:"latency_ns"`
	Copied     sample.Summary `json:"written_bytes"` // dirtied on the way, the asked bytes included
	Upper      sample.Summary `json:"upper_bytes"`   // space the upper takes, directories included
	Flushes    sample.Summary `json:"flushes"`       // of the disk; of loop images only
	Collateral sample.Summary `json:"collateral_ns"` // longest open and read of another file meanwhile
	Err        string         `json:"error,omitempty"`
}

// Report is a whole run.
type Report struct {
	Machine    rig.Machine `json:"machine"`
	Filesystem string      `json:"filesystem"`
	Rounds     int         `json:"rounds"`
	Peers      []string    `json:"peers"`
	Missing    []string    `json:"missing,omitempty"` // peers that are not here, and why
	Results    []*Result   `json:"results"`
}

type samples struct{ latency, copied, upper, flushes, collateral []float64 }

// Run measures on the filesystem that the directory scratch is on; image is that
// filesystem if it is one of rig's, else nil. It ends early, with what it has, when ctx ends.
func Run(ctx context.Context, scratch string, image *rig.Image, peers []*rig.Peer, o Options) (*Report, error) {
	if o.Rounds <= 0 {
		o.Rounds = 5
		if o.Quick {
			o.Rounds = 3
		}
	}
	rep := &Report{Machine: rig.Describe(nil), Rounds: o.Rounds, Filesystem: "host"}
	if image != nil {
		rep.Filesystem = image.Type
	}
	var here []*rig.Peer
	for _, p := range peers {
		if err := p.Check(); err != nil {
			rep.Missing = append(rep.Missing, fmt.Sprintf("%s: %v", p.Name, err))
			continue
		}
		here = append(here, p)
		rep.Peers = append(rep.Peers, p.Name)
	}
	r := &runner{scratch: scratch, image: image, made: map[string]bool{}}
	cases := Cases(&o)
	total, done := len(cases)*len(here)*o.Rounds, 0
	for _, c := range cases {
		lower, err := r.lower(c)
		if err != nil {
			return rep, err
		}
		all := make([]samples, len(here))
		errs := make([]error, len(here))
		for round := range o.Rounds + 1 { // the first warms up
			for i := range here {
				k := (i + round) % len(here)
				if errs[k] != nil {
					continue
				}
				if ctx.Err() != nil {
					return rep, ctx.Err()
				}
				var s samples
				if errs[k] = r.once(here[k], c, lower, &s); round > 0 {
					all[k].add(&s)
					done++
					if o.Progress != nil {
						o.Progress(done, total, c.Group+": "+c.Name)
					}
				}
			}
		}
		for i, p := range here {
			res := &Result{Case: c, Peer: p.Name, Latency: sample.Summarize(all[i].latency), Copied: sample.Summarize(all[i].copied),
				Upper: sample.Summarize(all[i].upper), Flushes: sample.Summarize(all[i].flushes), Collateral: sample.Summarize(all[i].collateral)}
			if errs[i] != nil {
				res.Err = errs[i].Error()
			}
			rep.Results = append(rep.Results, res)
		}
	}
	return rep, nil
}

func (s *samples) add(o *samples) {
	s.latency = append(s.latency, o.latency...)
	s.copied = append(s.copied, o.copied...)
	s.upper = append(s.upper, o.upper...)
	s.flushes = append(s.flushes, o.flushes...)
	s.collateral = append(s.collateral, o.collateral...)
}

type runner struct {
	scratch string
	image   *rig.Image
	made    map[string]bool // lower directories
}

// lower makes the files of a case, in a directory, with one more file for the bystander.
func (r *runner) lower(c *Case) (string, error) {
	dir := filepath.Join(r.scratch, "lower-"+c.spec())
	if r.made[dir] { // no case may change it
		return dir, nil
	}
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i*7 + i>>8)
	}
	for i := range c.Files {
		path := filepath.Join(dir, fileName(i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		f, err := os.Create(path)
		if err != nil {
			return "", err
		}
		if c.sparse {
			err = f.Truncate(c.Size)
			_, e1 := f.WriteAt(block[:4096], 0)
			_, e2 := f.WriteAt(block[:4096], c.Size-4096)
			if err == nil && (e1 != nil || e2 != nil) {
				err = fmt.Errorf("%v %v", e1, e2)
			}
		} else {
			for at := int64(0); at < c.Size && err == nil; at += int64(len(block)) {
				_, err = f.Write(block[:min(int64(len(block)), c.Size-at)])
			}
		}
		if e := f.Close(); err == nil {
			err = e
		}
		if err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bystander"), block[:4096], 0o644); err != nil {
		return "", err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	r.made[dir] = true
	return dir, unix.Syncfs(fd) // nothing of the preparation is left to be written while we measure
}

// once is one round of a case on a peer.
func (r *runner) once(p *rig.Peer, c *Case, lower string, s *samples) (err error) {
	turn := filepath.Join(r.scratch, "turn")
	defer func() {
		if e := os.RemoveAll(turn); err == nil {
			err = e
		}
	}()
	stack := &rig.Stack{Upper: turn + "/upper", Work: turn + "/work", Plain: turn + "/plain"}
	for i := range c.Depth - 1 {
		d := fmt.Sprintf("%s/empty%d", turn, i)
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
		stack.Lowers = append(stack.Lowers, d)
	}
	stack.Lowers = append(stack.Lowers, lower)
	if !p.Mounts() {
		return r.copyOnce(c, lower, stack.Plain, s)
	}
	m, err := p.Mount(stack, turn+"/mnt")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			m.Abandon()
			return
		}
		err = m.Close()
	}()
	if c.Cold {
		err = rig.DropCaches()
	} else {
		err = touch(m.Dir, c)
	}
	if err != nil {
		return err
	}
	dirtied := m.Dirtied()
	if err := r.timed(c, m.Dir, s); err != nil {
		return err
	}
	s.copied = append(s.copied, float64(m.Dirtied()-dirtied))
	space, _ := rig.Space(stack.Upper)
	s.upper = append(s.upper, float64(space))
	return nil
}

// copyOnce is the case on no union: a copy of the file, and the change of that.
func (r *runner) copyOnce(c *Case, lower, to string, s *samples) error {
	view := &Case{}
	*view = *c
	view.change = func(path string) error {
		rel, err := filepath.Rel(to, path)
		if err != nil {
			return err
		}
		if err := copyFile(filepath.Join(lower, rel), path); err != nil {
			return err
		}
		return c.change(path)
	}
	for i := range c.Files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, fileName(i))), 0o755); err != nil {
			return err
		}
	}
	if err := copyFile(filepath.Join(lower, "bystander"), filepath.Join(to, "bystander")); err != nil {
		return err
	}
	if err := r.timed(view, to, s); err != nil {
		return err
	}
	space, _ := rig.Space(to)
	s.upper = append(s.upper, float64(space))
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := out.ReadFrom(in); err != nil { // copy_file_range where it can
		out.Close()
		return err
	}
	return out.Close()
}

// timed makes the change, with somebody else looking at another file.
func (r *runner) timed(c *Case, dir string, s *samples) error {
	var flushes int64
	counted := false
	if r.image != nil {
		flushes, counted = r.image.Flushes()
	}
	var longest atomic.Int64
	stop := make(chan struct{})
	var bystander sync.WaitGroup
	bystander.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			start := time.Now()
			if _, err := os.ReadFile(filepath.Join(dir, "bystander")); err == nil {
				longest.Store(max(longest.Load(), int64(time.Since(start))))
			}
			time.Sleep(time.Millisecond)
		}
	})
	took, err := sample.Timed(func() error { return c.all(dir) })
	close(stop)
	bystander.Wait()
	if err != nil {
		return err
	}
	s.latency = append(s.latency, took/float64(c.Files))
	s.collateral = append(s.collateral, float64(longest.Load()))
	if counted {
		now, _ := r.image.Flushes()
		s.flushes = append(s.flushes, float64(now-flushes))
	}
	return nil
}

// all changes every file of the case, Jobs at once.
func (c *Case) all(dir string) error {
	errs := make([]error, c.Jobs)
	var wg sync.WaitGroup
	for j := range c.Jobs {
		wg.Go(func() {
			for i := j; i < c.Files && errs[j] == nil; i += c.Jobs {
				errs[j] = c.change(filepath.Join(dir, fileName(i)))
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// touch looks every name up, so that the change is what is measured.
func touch(dir string, c *Case) error {
	for i := range c.Files {
		if _, err := os.Lstat(filepath.Join(dir, fileName(i))); err != nil {
			return err
		}
	}
	return nil
}
