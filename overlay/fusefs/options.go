package fusefs

import (
	"fmt"
	"log"
	"os"
	"sync"
	"time"
)

// Mode says what the kernel may do without asking; see the package comment.
type Mode uint8

const (
	Cached Mode = iota
	Passthrough
	Shared
)

func (m Mode) String() string {
	switch m {
	case Cached:
		return "cached"
	case Passthrough:
		return "passthrough"
	case Shared:
		return "shared"
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// ParseMode is the inverse of String.
func ParseMode(s string) (Mode, error) {
	for m := Cached; m <= Shared; m++ {
		if m.String() == s {
			return m, nil
		}
	}
	return 0, fmt.Errorf("unknown mode %q (cached, passthrough, shared)", s)
}

// Timeouts of a view that nobody else changes, and of one that others do.
const (
	LongTimeout  = 24 * time.Hour
	ShortTimeout = time.Second
)

// Options of a mount. Start from DefaultOptions.
type Options struct {
	Mode      Mode
	Writeback bool // gather small writes in the kernel; cached mode only
	ACL       bool // POSIX ACLs decide about access

	// How long the kernel may believe what it was told. 0 is not at all.
	EntryTimeout, AttrTimeout, NegativeTimeout time.Duration

	// Mount options.
	AllowOther                     bool // root has it by default
	ReadOnly                       bool
	NoSuid, NoDev, NoExec, NoAtime bool
	Source                         string // first column of /proc/mounts
	Context                        string // SELinux: raw "context=..." options, comma separated

	// Log gets one line (or a line and a stack) per event worth knowing.
	Log func(format string, args ...any)

	shares, locks bool // see Sharer and Locker
}

// DefaultOptions are those of a mount of the given mode by the current user.
func DefaultOptions(mode Mode) Options {
	o := Options{
		Mode:            mode,
		ACL:             true,
		EntryTimeout:    LongTimeout,
		AttrTimeout:     LongTimeout,
		NegativeTimeout: LongTimeout,
		AllowOther:      os.Geteuid() == 0,
		Source:          "plyfs",
	}
	if mode == Shared {
		o.EntryTimeout, o.AttrTimeout, o.NegativeTimeout = ShortTimeout, ShortTimeout, 0
	}
	return o
}

func (o *Options) logf(format string, args ...any) {
	if o.Log != nil {
		o.Log(format, args...)
		return
	}
	log.Printf(format, args...)
}

func (o *Options) logOnce(once *sync.Once, format string, args ...any) {
	once.Do(func() { o.logf(format, args...) })
}
