package cow

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Cause is what made a copy-up necessary.
type Cause string

// The causes a union reports. Others may be used; they are counted as "other".
const (
	CauseWrite     Cause = "write"
	CauseTruncate  Cause = "truncate"
	CauseFallocate Cause = "fallocate"
	CauseChmod     Cause = "chmod"
	CauseChown     Cause = "chown"
	CauseUtimens   Cause = "utimens"
	CauseSetxattr  Cause = "setxattr"
	CauseSetflags  Cause = "setflags"
	CauseLink      Cause = "link"
	CauseUnlink    Cause = "unlink" // one of several names, whose count must be kept
	CauseRename    Cause = "rename"
	CauseParent    Cause = "parent" // a directory, for something made below it
	CauseOpen      Cause = "open"   // a descriptor the kernel writes through by itself
	CauseComplete  Cause = "complete"
	CauseOther     Cause = "other"
)

var causes = [...]Cause{
	CauseWrite, CauseTruncate, CauseFallocate, CauseChmod, CauseChown, CauseUtimens, CauseSetxattr,
	CauseSetflags, CauseLink, CauseUnlink, CauseRename, CauseParent, CauseOpen, CauseComplete, CauseOther,
}

// Method is how the data of a copy-up came to the upper.
type Method string

// The methods, in the package comment's words.
const (
	MethodNone      Method = "none"
	MethodMeta      Method = "meta"
	MethodClone     Method = "clone"
	MethodCopyRange Method = "copy_range"
	MethodLoop      Method = "loop"
	MethodRange     Method = "range"
)

var methods = [...]Method{MethodNone, MethodMeta, MethodClone, MethodCopyRange, MethodLoop, MethodRange}

// Event describes one copy-up, or the completion of one.
type Event struct {
	Seq         uint64        `json:"seq"`  // position in the stream, from 1
	Time        time.Time     `json:"time"` // when it ended
	Path        string        `json:"path"` // in the view; /(index)/… of a completion whose names in the view nobody has looked up
	Layer       string        `json:"layer"`
	LayerIndex  int           `json:"layer_index"`
	Method      Method        `json:"method"`
	Cause       Cause         `json:"cause"`
	PID         uint32        `json:"pid"`               // thread that asked; 0: this program, or the kernel with what it gathered or a mapping changed
	Process     string        `json:"process,omitempty"` // its name; known only while somebody listens
	BytesAsked  int64         `json:"bytes_asked"`       // what the caller wanted to change
	BytesCopied int64         `json:"bytes_copied"`      // what was read from the lower and written
	FileBytes   int64         `json:"file_bytes"`        // size of the lower file
	UpperBytes  int64         `json:"upper_bytes"`       // space the upper file occupies
	Wait        time.Duration `json:"wait_ns"`           // for another copy-up of the same object
	Copy        time.Duration `json:"copy_ns"`
	Err         string        `json:"err,omitempty"`
}

// Sum adds up the copy-ups of one kind.
type Sum struct {
	Count       uint64        `json:"count"`
	Failed      uint64        `json:"failed"`
	BytesAsked  int64         `json:"bytes_asked"`
	BytesCopied int64         `json:"bytes_copied"`
	UpperBytes  int64         `json:"upper_bytes"`
	Wait        time.Duration `json:"wait_ns"`
	Copy        time.Duration `json:"copy_ns"`
	Longest     time.Duration `json:"longest_ns"`
}

// Sums is what a [Bus] has counted since it was made.
type Sums struct {
	// BytesFilled were copied because a change of an unfinished file needed them: a write
	// that covers blocks in part, an allocation, an end of the file within a block. Those
	// of the first change are in its event's BytesCopied too.
	BytesFilled int64 `json:"bytes_filled"`

	Total    Sum            `json:"total"`
	ByMethod map[Method]Sum `json:"by_method"`
	ByCause  map[Cause]Sum  `json:"by_cause"`
}

type counter struct {
	count, failed                 atomic.Uint64
	asked, copied, upper          atomic.Int64
	waitNanos, copyNanos, longest atomic.Int64
}

func (c *counter) add(ev *Event) {
	c.count.Add(1)
	if ev.Err != "" {
		c.failed.Add(1)
	}
	c.asked.Add(ev.BytesAsked)
	c.copied.Add(ev.BytesCopied)
	c.upper.Add(ev.UpperBytes)
	c.waitNanos.Add(int64(ev.Wait))
	c.copyNanos.Add(int64(ev.Copy))
	for {
		old := c.longest.Load()
		if int64(ev.Copy) <= old || c.longest.CompareAndSwap(old, int64(ev.Copy)) {
			return
		}
	}
}

func (c *counter) sum() Sum {
	return Sum{
		Count: c.count.Load(), Failed: c.failed.Load(),
		BytesAsked: c.asked.Load(), BytesCopied: c.copied.Load(), UpperBytes: c.upper.Load(),
		Wait: time.Duration(c.waitNanos.Load()), Copy: time.Duration(c.copyNanos.Load()),
		Longest: time.Duration(c.longest.Load()),
	}
}

// listening is how long after a listener last asked events are still built and kept for it.
const listening = time.Minute

// backlog is how many events a Bus remembers for cursors once somebody listens.
const backlog = 4096

// Bus carries events to whoever listens, and counts them. Without a listener
// an event costs a few atomic additions. The zero value is not usable; see
// [NewBus]. All methods may be called from any goroutine.
type Bus struct {
	total    counter
	filled   atomic.Int64
	byMethod [len(methods)]counter
	byCause  [len(causes)]counter
	waiting  atomic.Int32 // calls of After
	asked    atomic.Int64 // when somebody last asked for events, in Unix nanoseconds; 0: never

	mu   sync.Mutex
	seq  uint64                  // of the newest event in ring; guarded by mu
	ring []Event                 // the newest events, oldest first; guarded by mu
	subs map[chan Event]struct{} // guarded by mu
	open atomic.Int32            // len(subs)
	more chan struct{}           // closed and replaced at each event; guarded by mu
}

// NewBus returns a Bus with no listener.
func NewBus() *Bus {
	return &Bus{subs: map[chan Event]struct{}{}, more: make(chan struct{})}
}

// watched says whether somebody is interested in an event that took until end, took long,
// and so may have begun when a listener that polls had not asked for a while.
func (b *Bus) watched(end time.Time, took time.Duration) bool {
	if b.open.Load() > 0 || b.waiting.Load() > 0 {
		return true
	}
	asked := b.asked.Load()
	return asked != 0 && end.Add(-took).UnixNano()-asked < int64(listening)
}

// Publish counts ev and hands it to the listeners. It never blocks: a
// subscriber that does not keep up misses events, and sees so by Event.Seq.
func (b *Bus) Publish(ev Event) {
	b.total.add(&ev)
	b.byMethod[methodIndex(ev.Method)].add(&ev)
	b.byCause[causeIndex(ev.Cause)].add(&ev)
	if !b.watched(ev.Time, ev.Copy) {
		return
	}
	if ev.PID != 0 {
		if name, err := os.ReadFile("/proc/" + strconv.Itoa(int(ev.PID)) + "/comm"); err == nil {
			ev.Process = strings.TrimSuffix(string(name), "\n")
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seq++
	ev.Seq = b.seq
	if len(b.ring) == backlog {
		copy(b.ring, b.ring[backlog/2:])
		b.ring = b.ring[:backlog/2]
	}
	b.ring = append(b.ring, ev)
	for ch := range b.subs {
		select {
		case ch <- ev:
		default:
		}
	}
	close(b.more)
	b.more = make(chan struct{})
}

// Subscribe returns a channel that holds up to buffer undelivered events, and a
// function that ends the subscription and closes the channel.
func (b *Bus) Subscribe(buffer int) (<-chan Event, func()) {
	ch := make(chan Event, max(buffer, 1))
	b.mu.Lock()
	b.subs[ch] = struct{}{}
	b.open.Store(int32(len(b.subs)))
	b.mu.Unlock()
	var once sync.Once
	return ch, func() {
		once.Do(func() {
			b.mu.Lock()
			delete(b.subs, ch)
			b.open.Store(int32(len(b.subs)))
			b.mu.Unlock()
			close(ch)
		})
	}
}

// Cursor returns the sequence number of the newest event; from now on events
// are remembered for [Bus.After], for a minute, and after it for another.
func (b *Bus) Cursor() uint64 {
	b.asked.Store(time.Now().UnixNano())
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seq
}

// Since is [Bus.After] without waiting.
func (b *Bus) Since(cursor uint64) []Event {
	done := make(chan struct{})
	close(done)
	return b.After(cursor, done)
}

// After returns the remembered events that follow cursor, oldest first. When
// there is none yet it waits until one comes, or until done is closed, and then
// may return nothing. Events older than the last few thousand are lost; the
// gap shows in Event.Seq.
func (b *Bus) After(cursor uint64, done <-chan struct{}) []Event {
	b.waiting.Add(1)
	defer func() {
		b.asked.Store(time.Now().UnixNano())
		b.waiting.Add(-1)
	}()
	for {
		b.mu.Lock()
		cursor = min(cursor, b.seq) // a cursor of an earlier mount
		if b.seq > cursor && len(b.ring) > 0 {
			oldest := b.ring[0].Seq
			from := 0
			if cursor >= oldest {
				from = int(cursor - oldest + 1)
			}
			out := append([]Event(nil), b.ring[from:]...)
			b.mu.Unlock()
			return out
		}
		more := b.more
		b.mu.Unlock()
		select {
		case <-done:
			return nil
		default:
		}
		select {
		case <-more:
		case <-done:
			return nil
		}
	}
}

// Sums returns what has been counted so far. Kinds that did not occur are left out.
func (b *Bus) Sums() Sums {
	s := Sums{BytesFilled: b.filled.Load(), Total: b.total.sum(), ByMethod: map[Method]Sum{}, ByCause: map[Cause]Sum{}}
	for i, m := range methods {
		if sum := b.byMethod[i].sum(); sum.Count > 0 {
			s.ByMethod[m] = sum
		}
	}
	for i, c := range causes {
		if sum := b.byCause[i].sum(); sum.Count > 0 {
			s.ByCause[c] = sum
		}
	}
	return s
}

func methodIndex(m Method) int {
	for i := range methods {
		if methods[i] == m {
			return i
		}
	}
	return 0
}

func causeIndex(c Cause) int {
	for i := range causes {
		if causes[i] == c {
			return i
		}
	}
	return len(causes) - 1
}
