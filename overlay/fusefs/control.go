package fusefs

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A live mount is asked and steered through extended attributes that no file has
// and no listing shows: any file of the mount answers them. There is no socket
// to find, and the permissions are the file's own plus controlAllowed.
const (
	ctlPrefix  = "plyfs."
	CtlStat    = ctlPrefix + "stat"    // get: JSON, see Stat
	CtlExplain = ctlPrefix + "explain" // get: JSON of Explainer
	CtlEvents  = ctlPrefix + "events." // get: JSON of Events, the cursor follows the name
	CtlSettle  = ctlPrefix + "settle"  // get: does what Settler does, then an empty JSON object
)

func isControl(name string) bool { return strings.HasPrefix(name, ctlPrefix) }

// counters are exact: a request counts when it is taken from the device, its
// own answer included. Reads of plyfs.stat count as "control" and not as
// GETXATTR, so that looking does not change what is seen.
type counters struct {
	requests                [opMax]atomic.Uint64
	unknown, panics         atomic.Uint64
	control                 atomic.Uint64
	bytesRead, bytesWritten atomic.Uint64
}

// Stat is what plyfs.stat shows.
type Stat struct {
	Mode         string            `json:"mode"`
	Writeback    bool              `json:"writeback"`
	Requests     map[string]uint64 `json:"requests"` // by kind, those not 0
	Total        uint64            `json:"total"`
	Control      uint64            `json:"control"`
	Unknown      uint64            `json:"unknown,omitempty"`
	Panics       uint64            `json:"panics,omitempty"`
	BytesRead    uint64            `json:"bytes_read"`
	BytesWritten uint64            `json:"bytes_written"`
	Workers      int               `json:"workers"`
	Union        any               `json:"union,omitempty"` // what the union says of itself
}

func (s *session[N]) status() *Stat {
	st := &Stat{
		Mode:         s.opt.Mode.String(),
		Writeback:    s.neg.writeback,
		Requests:     map[string]uint64{},
		Control:      s.stat.control.Load(),
		Unknown:      s.stat.unknown.Load(),
		Panics:       s.stat.panics.Load(),
		BytesRead:    s.stat.bytesRead.Load(),
		BytesWritten: s.stat.bytesWritten.Load(),
	}
	if s.conn != nil {
		st.Workers = s.conn.workers()
	}
	for op := range s.stat.requests {
		if n := s.stat.requests[op].Load(); n != 0 {
			name := opNames[op]
			if name == "" {
				name = "OTHER"
			}
			st.Requests[name] += n
			st.Total += n
		}
	}
	if x, ok := s.fs.(Stater); ok {
		st.Union = x.Stat()
	}
	return st
}

// controlAllowed: explanations and events name directories of the host, which is
// for root and whoever runs the daemon. With idmapped callers the kernel hides
// the number (it sends -1), and then nobody is allowed.
func controlAllowed(c *Caller) bool {
	return c.UID == 0 || c.UID == uint32(os.Getuid())
}

func (s *session[N]) getControl(r *request, n N, name string, asked int) unix.Errno {
	s.stat.requests[opGetxattr].Add(^uint64(0))
	s.stat.control.Add(1)
	var b []byte
	var err error
	switch {
	case name == CtlStat:
		st := s.status()
		if !controlAllowed(&r.caller) {
			st.Union = nil
		}
		b, err = json.Marshal(st)
	case !controlAllowed(&r.caller):
		return unix.EPERM
	case name == CtlExplain:
		x, ok := s.fs.(Explainer[N])
		if !ok {
			return unix.ENODATA
		}
		b, err = x.Explain(n)
	case strings.HasPrefix(name, CtlEvents):
		x, ok := s.fs.(Events)
		if !ok {
			return unix.ENODATA
		}
		if asked == 0 { // no waiting just for a size
			return sized(r, 0, controlMax, nil)
		}
		b, err = x.Events(name[len(CtlEvents):], r.caller.Cancel)
	case name == CtlSettle:
		// Not by setting it: the kernel holds the inode's lock meanwhile, and with it every
		// change and every lookup in a directory.
		x, ok := s.fs.(Settler)
		if !ok {
			return unix.ENODATA
		}
		if asked == 0 {
			return sized(r, 0, controlPad, nil)
		}
		b, err = []byte("{}"), x.Settle("", r.caller.Cancel)
	default:
		return unix.ENODATA
	}
	if err != nil {
		return errno(err)
	}
	if len(b) > controlMax-2*controlPad {
		b = pack(b)
	}
	b = padControl(b)
	if len(b) > controlMax {
		return unix.E2BIG
	}
	if asked != 0 {
		copy(r.out, b)
	}
	return sized(r, asked, len(b), nil)
}

// controlPad rounds values up, with blanks, which JSON ignores: a caller that asks
// for the size first does not fail because a counter grew by a digit since.
const (
	controlPad = 1024
	controlMax = 64 << 10 // XATTR_SIZE_MAX
)

func padControl(b []byte) []byte {
	n := (len(b) + controlPad/2 + controlPad - 1) &^ (controlPad - 1)
	return append(b, bytes.Repeat([]byte{' '}, n-len(b))...)
}

// pack makes an answer smaller that is too long for an attribute: what there is to say of hundreds of layers
// is much the same for each of them.
func pack(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b) // a Buffer takes all
	_ = z.Close()
	return out.Bytes()
}

// Unpack returns the JSON of what a control attribute answered: that itself, if it was short.
func Unpack(b []byte) ([]byte, error) {
	if !bytes.HasPrefix(b, []byte{0x1f, 0x8b}) { // RFC 1952, 2.3.1
		return b, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	z.Multistream(false) // what follows is padding
	return io.ReadAll(z)
}

func (s *session[N]) setControl(r *request) unix.Errno {
	s.stat.requests[opSetxattr].Add(^uint64(0))
	s.stat.control.Add(1)
	if !controlAllowed(&r.caller) {
		return unix.EPERM
	}
	return unix.EOPNOTSUPP
}
