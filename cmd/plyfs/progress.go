package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// progress shows how far something is: a bar that is drawn anew on a terminal, else a line
// every few seconds. Nothing is shown of what is over at once.
type progress struct {
	out   *os.File
	what  string
	width int // of the terminal; 0: none
	since time.Time
	last  time.Time
	drawn bool
}

func newProgress(out *os.File, what string) *progress {
	p := &progress{out: out, what: what, since: time.Now()}
	if term.IsTerminal(int(out.Fd())) {
		if w, _, err := term.GetSize(int(out.Fd())); err == nil && w > 0 {
			p.width = w
		} else {
			p.width = 80
		}
	}
	return p
}

// at shows that so many bytes of so many are done.
func (p *progress) at(done, total int64) {
	now := time.Now()
	if p.width == 0 {
		if now.Sub(p.since) < 3*time.Second || now.Sub(p.last) < 3*time.Second {
			return
		}
		p.last = now
		fmt.Fprintf(p.out, "plyfs: %s: %s of %s\n", p.what, bytesText(done), bytesText(total))
		return
	}
	if now.Sub(p.last) < 50*time.Millisecond {
		return // faster than anybody looks
	}
	p.last = now
	fmt.Fprint(p.out, "\r", bar(p.what, done, total, p.width), "\x1b[K")
	p.drawn = true
}

// end takes the bar away.
func (p *progress) end() {
	if p.drawn {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// bar is one line of less than width columns.
func bar(what string, done, total int64, width int) string {
	part := 1.0
	if total > 0 {
		part = min(float64(done)/float64(total), 1)
	}
	tail := fmt.Sprintf("%3.0f%% of %s", part*100, bytesText(total))
	room := width - len(what) - len(tail) - 5
	if room < 10 {
		return tail[:min(len(tail), max(width-1, 0))]
	}
	full := int(part * float64(room))
	return fmt.Sprintf("%s [%s%s] %s", what, strings.Repeat("#", full), strings.Repeat(".", room-full), tail)
}
