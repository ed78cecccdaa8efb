package overlay

import (
	"fmt"
	"log"

	"golang.org/x/sys/unix"
)

// Switch is the value of an option of the kernel's overlayfs that may be left to us.
type Switch uint8

// Values of a Switch.
const (
	Auto Switch = iota
	On
	Off
)

// IDRange maps Count ids from Host (as stored in the layers) to View (as shown).
type IDRange struct {
	View, Host, Count uint32
}

// Config describes a mount. Only Lowers (or Upper) is required. Paths may be relative
// to the working directory of the process; they are opened once, in New.
type Config struct {
	Lowers     []string // topmost first
	DataLowers []string // searched for the data of metadata-only files only
	Upper      string   // "" for a read-only view
	Work       string   // on the filesystem of Upper; "" for a directory beside it
	Mountpoint string   // refused inside a layer; "" if there is none

	// Redirect: renamed lower directories leave a redirect mark (On, Auto), or
	// renaming them is EXDEV (Off). NoFollow ignores such marks in the layers.
	Redirect Switch
	NoFollow bool
	// Metacopy On keeps metadata-only files in the upper after an unmount.
	Metacopy Switch
	// Index Off gives up hard links across copy-up.
	Index Switch
	// UserXattr On keeps marks in user.overlay.*, Off in trusted.overlay.*; Auto
	// takes what the process may write.
	UserXattr Switch
	Volatile  bool // no fsync; refuses an upper that was not unmounted cleanly

	// Ownership, as fuse-overlayfs names the options.
	UIDMap, GIDMap []IDRange
	SquashUID      int64 // -1: none
	SquashGID      int64
	// XattrPermissions keeps owner and mode of upper files in an attribute: 1 in
	// security.fuseoverlayfs.override_stat (privileged), 2 in
	// user.containers.override_stat. 0 is off. See override.go.
	XattrPermissions int
	NoACL            bool
	StaticNlink      bool // directories show one link
	NoAtime          bool // reading upper files leaves their access times; that of lower ones always does

	// LowersChange: others may change the lower layers meanwhile, and see changing.go. The upper is still ours.
	LowersChange bool

	// Threshold in bytes from which the first write copies by range: 0 for the
	// default, below 0 for never.
	Threshold int64
	// SettleBudget is how many bytes per second the idle worker may copy to
	// complete unfinished files: 0 for the default, below 0 for none.
	SettleBudget int64
	// NoSettle leaves unfinished files unfinished at Close.
	NoSettle bool
	// Unwanted is asked while Close completes files, and ends that when nobody wants the upper
	// any more; may be nil.
	Unwanted func() bool

	// Log takes one line for each thing the user should know. nil is package log.
	Log func(format string, args ...any)
	// Progress is told how settling goes; may be nil.
	Progress func(done, total int64)
}

// DefaultConfig returns a Config with everything left to the defaults.
func DefaultConfig() Config { return Config{SquashUID: -1, SquashGID: -1} }

func (c *Config) logf(format string, args ...any) {
	if c.Log != nil {
		c.Log(format, args...)
		return
	}
	log.Printf(format, args...)
}

// refusal is an error whose text says it all; errno is for callers that ask.
func refusal(path, why string, errno unix.Errno) error { return &refused{path + ": " + why, errno} }

type refused struct {
	text  string
	errno unix.Errno
}

func (r *refused) Error() string { return r.text }
func (r *refused) Unwrap() error { return r.errno }

// failure is an error for the user: what failed, on which path, why, what to do.
func failure(path, why string, err error) error {
	if err == nil {
		return fmt.Errorf("%s: %s", path, why)
	}
	return fmt.Errorf("%s: %s: %w", path, why, err)
}
