package fusefs

import (
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Server is one live mount.
type Server struct {
	// Ready is closed when requests are being served.
	Ready chan struct{}

	path  string
	conn  *conn
	stat  func() *Stat
	ready sync.Once
}

// Mount mounts fs at path, agrees with the kernel on the protocol, and returns; from
// then on the mount exists, and its callers wait until Serve runs. Errors are one
// line with the path; see ErrNoDevice, ErrNotPermitted, ErrMounted and ErrDead.
func Mount[N Node](fs Union[N], path string, opt Options) (*Server, error) {
	if err := Check(path); err != nil {
		return nil, err
	}
	fd, err := mountDevice(path, &opt)
	if err != nil {
		return nil, err
	}
	s := newSession(fs, &opt)
	c := newConn(fd, s.serve, s.undo, opt.logf)
	s.conn = c
	if err := s.handshake(c); err != nil {
		_ = unmount(path, true)
		unix.Close(fd)
		return nil, err
	}
	s.dev = tuneDevice(path)
	return &Server{Ready: make(chan struct{}), path: path, conn: c, stat: s.status}, nil
}

// MinProcs is the least number of processors the Go scheduler may believe in. A
// worker that comes back from read(2) needs a free one; with as many as there are
// CPUs (one, in a pinned process) it would wait for sysmon, up to 10 ms, while the
// others are blocked in the kernel and need none.
const MinProcs = 8

// Serve answers requests until the filesystem is unmounted (nil) or the device
// fails. It returns after the last worker has ended. It raises GOMAXPROCS to
// MinProcs, for the whole process.
func (v *Server) Serve() error {
	if runtime.GOMAXPROCS(0) < MinProcs {
		runtime.GOMAXPROCS(MinProcs)
	}
	v.ready.Do(func() { close(v.Ready) })
	err := v.conn.run()
	unix.Close(v.conn.fd)
	return err
}

// Unmount takes the mount away; EBUSY while it is in use. Serve returns afterwards.
func (v *Server) Unmount() error { return Unmount(v.path) }

// Stat is what plyfs.stat shows.
func (v *Server) Stat() *Stat { return v.stat() }
