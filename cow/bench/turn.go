package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow/bench/rig"
	"github.com/plyfs/plyfs/cow/bench/sample"
)

// Place is where to measure.
type Place struct {
	Dir   string     // on the filesystem of the upper
	Image *rig.Image // that filesystem if it is one of rig's, else nil
	Apart string     // a directory on another filesystem; empty for none
	// User says that we are not root: caches cannot be emptied there, nor owners changed.
	User bool
}

var dropCaches = rig.DropCaches // tests do without

type samples struct{ latency, copied, upper, flushes, collateral, usual, settle []float64 }

func (s *samples) add(o *samples) {
	s.latency = append(s.latency, o.latency...)
	s.copied = append(s.copied, o.copied...)
	s.upper = append(s.upper, o.upper...)
	s.flushes = append(s.flushes, o.flushes...)
	s.collateral = append(s.collateral, o.collateral...)
	s.usual = append(s.usual, o.usual...)
	s.settle = append(s.settle, o.settle...)
}

// once is one round of a case on a peer.
func (r *runner) once(p *rig.Peer, c *Case, lower string, settle bool, s *samples) (err error) {
	turn := filepath.Join(r.Dir, "turn")
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
	stack.Lowers = append(stack.Lowers, lower, filepath.Join(r.Dir, strangersLayer))
	if !p.Mounts() {
		return r.copyOnce(p, c, lower, stack.Plain, s)
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
		err = dropCaches()
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
	r.wrote(m.Dirtied()-dirtied, s)
	space, _ := rig.Space(stack.Upper)
	s.upper = append(s.upper, float64(space))
	if settle && m.Settles() {
		took, err := sample.Timed(m.Settle)
		if err != nil {
			return err
		}
		s.settle = append(s.settle, took/float64(c.Files))
	}
	return nil
}

// wrote notes bytes that were dirtied. A tmpfs does not count them.
func (r *runner) wrote(n int64, s *samples) {
	if r.Image == nil || r.Image.Type != "tmpfs" {
		s.copied = append(s.copied, float64(n))
	}
}

// timed makes the change, with somebody else looking at other files.
func (r *runner) timed(c *Case, dir string, s *samples) error {
	flushes, counted := r.Image.Flushes()
	stop := make(chan struct{})
	waits := make(chan []float64)
	if c.alone {
		close(waits)
	} else {
		go func() { waits <- bystand(dir, stop) }()
	}
	took, err := sample.Timed(func() error {
		if c.all != nil {
			return c.all(dir)
		}
		return c.each(dir)
	})
	close(stop)
	waited := <-waits
	if err != nil {
		return err
	}
	s.latency = append(s.latency, took/float64(c.Files))
	if len(waited) > 0 {
		slices.Sort(waited)
		s.collateral = append(s.collateral, waited[len(waited)-1])
		s.usual = append(s.usual, sample.Quantile(waited, 0.99))
	}
	if counted {
		now, _ := r.Image.Flushes()
		s.flushes = append(s.flushes, float64(now-flushes))
	}
	return nil
}

// bystand opens and reads small files, one after the other, none twice if it can, until stop is
// closed. It returns how long each took, in nanoseconds; nothing when it was over too soon to tell.
func bystand(dir string, stop <-chan struct{}) (waits []float64) {
	for i := 0; ; i = (i + 1) % strangersCount {
		select {
		case <-stop:
			return waits
		case <-time.After(time.Millisecond):
		}
		took, err := sample.Timed(func() error {
			_, err := os.ReadFile(strangerName(dir, i))
			return err
		})
		if err == nil {
			waits = append(waits, took)
		}
	}
}

// each changes every file of the case, Jobs at once.
func (c *Case) each(dir string) error {
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

// touch looks every name up, and has one other file read, so that the change is what is measured and
// not the first request of its kind.
func touch(dir string, c *Case) error {
	if _, err := os.ReadFile(strangerName(dir, strangersCount)); err != nil {
		return err
	}
	for i := range c.Files {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, fileName(i)), &st); err != nil {
			return err
		}
	}
	return nil
}
