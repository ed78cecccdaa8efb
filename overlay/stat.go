package overlay

import (
	"encoding/json"
	"strconv"

	"github.com/plyfs/plyfs/cow"
)

// Stat is what a union says of itself.
type Stat struct {
	Nodes      int `json:"nodes"`      // alive: what the kernel holds, and their parents
	OpenFiles  int `json:"open_files"` // descriptors kept of files
	Unfinished int `json:"unfinished"` // files not completed; 1 if it is not known how many
	// UnfinishedBytes is how much of them is still to be copied, at most; -1 if finding out
	// would take long: many files, or those of an earlier mount.
	UnfinishedBytes int64      `json:"unfinished_bytes"`
	Settling        *Completed `json:"settling,omitempty"` // nil: nobody is completing them
	CopyUps         cow.Sums   `json:"copyups"`
}

// Completed says how far the completion of unfinished files is, in bytes of the files.
type Completed struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// pendingMax is how many unfinished files are looked at to tell what is to be copied.
const pendingMax = 1000

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
		s.Unfinished, s.UnfinishedBytes = fs.eng.Pending(pendingMax)
	}
	fs.settle.mu.Lock()
	if fs.settle.running {
		s.Settling = &Completed{fs.settle.done, fs.settle.total}
	}
	fs.settle.mu.Unlock()
	return s
}

// eventPage is what Events returns.
type eventPage struct {
	Cursor string      `json:"cursor"` // for the next call
	Events []cow.Event `json:"events"`
}

// pageMax is how many events one page may have: it must fit an extended attribute.
const pageMax = 64

// Events returns, as JSON, the copy-ups after cursor, the Cursor of an earlier page: none, if there
// was none since. With an empty cursor it returns none, and the cursor of this moment. It does
// not wait: a caller that did would keep the mount busy.
func (fs *FS) Events(cursor string, _ <-chan struct{}) ([]byte, error) {
	if cursor == "" {
		return json.Marshal(eventPage{Cursor: strconv.FormatUint(fs.bus.Cursor(), 10), Events: []cow.Event{}})
	}
	after, err := strconv.ParseUint(cursor, 10, 64)
	if err != nil {
		return nil, errCursor
	}
	evs := fs.bus.Since(after)
	if len(evs) == 0 {
		return json.Marshal(eventPage{Cursor: strconv.FormatUint(min(after, fs.bus.Cursor()), 10), Events: evs})
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
