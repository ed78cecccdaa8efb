package overlay

import (
	"encoding/json"
	"strconv"

	"github.com/plyfs/plyfs/cow"
)

// Stat is what a union says of itself.
type Stat struct {
	Nodes      int      `json:"nodes"`      // alive: what the kernel holds, and their parents
	OpenFiles  int      `json:"open_files"` // descriptors kept of files
	Unfinished int      `json:"unfinished"` // files copied up by range and not completed; an estimate
	CopyUps    cow.Sums `json:"copyups"`
}

// Stat returns the figures of this moment.
func (fs *FS) Stat() Stat {
	s := Stat{CopyUps: fs.bus.Sums()}
	fs.nodes.mu.Lock()
	s.Nodes = fs.nodes.live
	fs.nodes.mu.Unlock()
	fs.files.mu.Lock()
	s.OpenFiles = fs.files.lru.Len()
	fs.files.mu.Unlock()
	if fs.eng != nil {
		s.Unfinished = fs.eng.Unfinished()
	}
	return s
}

// eventPage is what Events returns.
type eventPage struct {
	Cursor string      `json:"cursor"` // for the next call
	Events []cow.Event `json:"events"`
}

// pageMax is how many events one page may have: it must fit an extended attribute.
const pageMax = 64

// Events returns, as JSON, the copy-ups after cursor, the Cursor of an earlier page. It waits for
// the first until cancel is closed. With an empty cursor it returns at once, with the cursor
// of this moment.
func (fs *FS) Events(cursor string, cancel <-chan struct{}) ([]byte, error) {
	if cursor == "" {
		return json.Marshal(eventPage{Cursor: strconv.FormatUint(fs.bus.Cursor(), 10), Events: []cow.Event{}})
	}
	after, err := strconv.ParseUint(cursor, 10, 64)
	if err != nil {
		return nil, errCursor
	}
	evs := fs.bus.After(after, cancel)
	if len(evs) == 0 {
		return nil, errInterrupted
	}
	const most = 48 << 10
	for n := min(len(evs), pageMax); ; n = (n + 1) / 2 {
		page := eventPage{Cursor: strconv.FormatUint(evs[n-1].Seq, 10), Events: evs[:n]}
		b, err := json.Marshal(page)
		if err != nil || len(b) <= most || n == 1 {
			return b, err
		}
	}
}
