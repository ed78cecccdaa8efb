package overlay

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
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
	Ways            []Ways     `json:"ways,omitempty"`
	// Threshold is the size in bytes from which files are copied up by range; below 0 if none is.
	Threshold int64 `json:"threshold"`
}

// Ways says how the data of lower files gets to the upper, see [cow.Engine.Ways].
type Ways struct {
	Layers  string       `json:"layers"` // such as "lower 1-3": 1 is the topmost
	Methods []cow.Method `json:"methods"`
}

// Completed says how far the completion of unfinished files is, in bytes of the files.
type Completed struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// pendingMax is how many unfinished files are looked at to tell what is to be copied.
const pendingMax = 1000

// waysPatience is how long Stat waits for what is tried on the upper's filesystem: that may be frozen.
const waysPatience = time.Second

// Stat returns the figures of this moment.
func (fs *FS) Stat() Stat {
	s := Stat{CopyUps: fs.bus.Sums(), Threshold: -1}
	fs.nodes.mu.Lock()
	s.Nodes = fs.nodes.live
	fs.nodes.mu.Unlock()
	fs.files.mu.Lock()
	s.OpenFiles = fs.files.lru.Len()
	fs.files.mu.Unlock()
	if fs.eng != nil {
		s.Unfinished, s.UnfinishedBytes = fs.eng.Pending(pendingMax)
		select {
		case <-fs.eng.TryWays():
			s.Ways = fs.allWays()
			if size, ever := fs.eng.Threshold(); ever {
				s.Threshold = size
			}
		case <-time.After(waysPatience): // not known yet
		}
	}
	fs.settle.mu.Lock()
	if fs.settle.running {
		s.Settling = &Completed{fs.settle.done, fs.settle.total}
	}
	fs.settle.mu.Unlock()
	return s
}

// allWays is for every layer that may have data; there is an upper.
func (fs *FS) allWays() []Ways {
	return append(fs.ways("lower", fs.lowers), fs.ways("data", fs.datas)...)
}

// ways gathers neighbours for which the methods are the same.
func (fs *FS) ways(kind string, trees []*layer.Tree) []Ways {
	var out []Ways
	first := 0
	for i, t := range trees {
		methods := fs.eng.Ways(t)
		if i > 0 && slices.Equal(methods, out[len(out)-1].Methods) {
			out[len(out)-1].Layers = fmt.Sprintf("%s %d-%d", kind, first+1, i+1)
			continue
		}
		first = i
		out = append(out, Ways{fmt.Sprintf("%s %d", kind, i+1), methods})
	}
	return out
}

// Describe says in a few lines what was found out about the upper when the union was made; none without one. It tries more in the
// work directory, and is for before the first operation.
func (fs *FS) Describe() []string {
	if fs.eng == nil {
		return []string{"marks in " + fs.ns.Name("")}
	}
	can := fs.can
	if all, err := layer.Probe(fs.stage, true); err == nil {
		can = all
	}
	out := []string{fmt.Sprintf("marks in %s, the upper's filesystem has %s", fs.ns.Name(""), can)}
	for _, w := range fs.allWays() {
		out = append(out, "copy-up from "+w.String())
	}
	if size, ever := fs.eng.Threshold(); ever {
		out = append(out, fmt.Sprintf("copy-up by range from %d bytes on", size))
	}
	return out
}

// String is for people.
func (w Ways) String() string {
	out := w.Layers + ":"
	for i, m := range w.Methods {
		if i > 0 {
			out += ","
		}
		out += " " + string(m)
	}
	return out
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
