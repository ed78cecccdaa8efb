package lab

import (
	"path/filepath"
	"sync"
	"time"

	"github.com/plyfs/plyfs/cmd/plyfs/mounts"
	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/overlay/fusefs"
)

// CopyUp is a copy-up in one of the mounts of an exercise.
type CopyUp struct {
	Mount string `json:"mount"` // the directory it is mounted on
	cow.Event
}

// collectEvery is how often the mounts are asked. What happens between the last time and an unmount is
// lost, and what happens between a mount and the first time.
const collectEvery = 50 * time.Millisecond

// collector gathers the copy-ups of all mounts in a directory, as plyfs watch does for one.
type collector struct {
	dir  string
	quit chan struct{}

	mu      sync.Mutex
	cursors map[string]string // by mount; guarded by mu
	events  []CopyUp          // guarded by mu
}

func collect(dir string) *collector {
	c := &collector{dir: dir, quit: make(chan struct{}), cursors: map[string]string{}}
	go func() {
		for {
			select {
			case <-c.quit:
				return
			case <-time.After(collectEvery):
				c.poll()
			}
		}
	}()
	return c
}

func (c *collector) poll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	table, err := mounts.Below(c.dir)
	if err != nil {
		return
	}
	live := map[string]string{}
	for _, m := range table {
		if m.Type != mounts.Plyfs {
			continue
		}
		name, err := filepath.Rel(c.dir, m.Point)
		if err != nil {
			continue
		}
		key := m.ID + " " + name
		live[key] = c.cursors[key]
		for {
			cursor, events, err := copyUpsAfter(m.Point, live[key])
			if err != nil {
				break
			}
			live[key] = cursor
			for _, ev := range events {
				c.events = append(c.events, CopyUp{name, ev})
			}
			if len(events) == 0 {
				break
			}
		}
	}
	c.cursors = live
}

// all returns the copy-ups so far.
func (c *collector) all() []CopyUp {
	c.poll()
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]CopyUp{}, c.events...)
}

func (c *collector) close() { close(c.quit) }

// copyUpsAfter asks a mount for a page of its copy-ups.
func copyUpsAfter(point, cursor string) (next string, events []cow.Event, err error) {
	var page struct {
		Cursor string      `json:"cursor"`
		Events []cow.Event `json:"events"`
	}
	err = ask(point, fusefs.CtlEvents+cursor, &page)
	return page.Cursor, page.Events, err
}
