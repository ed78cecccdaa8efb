package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// spliceFrom is the size from which a READ is answered without passing its bytes through the
	// daemon's memory: below, the system calls cost as much as the copy.
	spliceFrom = 128 << 10
	// pipeSize is what everybody may have (fs.pipe-max-size); what goes through is smaller.
	pipeSize = 1 << 20
	// readAhead is the size of the READs of who reads in order.
	readAhead = pipeSize / 2
)

// pipe is what bytes go through from a file to the device (splice(2)): as references to the file's
// pages, so that they are copied once, and not twice.
type pipe struct {
	ends  [2]int
	slots int // pages it holds; 0: not open
	never bool
}

// open makes the pipe, if there is none.
func (p *pipe) open() bool {
	if p.slots > 0 || p.never {
		return p.slots > 0
	}
	if unix.Pipe2(p.ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		p.never = true
		return false
	}
	if got, err := unix.FcntlInt(uintptr(p.ends[1]), unix.F_SETPIPE_SZ, pipeSize); err == nil {
		p.slots = got / pageSize
		return true
	}
	p.close()
	p.never = true
	return false
}

// close also throws away what is in the pipe. The next open makes a new one.
func (p *pipe) close() {
	if p.ends[1] != 0 {
		unix.Close(p.ends[0])
		unix.Close(p.ends[1])
	}
	p.ends, p.slots = [2]int{}, 0
}

// splice answers a READ of size bytes at off, all of which the file has, out of the file that x
// names. Where it reports false, nothing was answered.
func (s *session[N]) splice(r *request, x Splicer[N], n N, size int, off int64) bool {
	p := &r.w.pipe
	fd, done := x.Source(n)
	if fd < 0 {
		return false
	}
	defer done()
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || off+int64(size) > st.Size {
		return false // the answer says how long it is before its bytes come
	}
	if !p.open() || size/pageSize+3 > p.slots { // the header, and pages begun and ended in the middle
		return false
	}
	h := fuse.OutHeader{Length: uint32(outHeaderSize + size), Unique: r.hdr.Unique}
	if sysWrite(p.ends[1], bytesOf(&h)) != 0 { // all of it: the pipe is empty
		p.close()
		return false
	}
	for left := size; left > 0; {
		got, err := unix.Splice(fd, &off, p.ends[1], nil, left, unix.SPLICE_F_NONBLOCK)
		if err == unix.EINTR {
			continue
		}
		if err != nil || got == 0 { // truncated meanwhile; or a filesystem that cannot
			p.close()
			return false
		}
		left -= int(got)
	}
	if _, err := unix.Splice(p.ends[0], nil, s.conn.fd, nil, outHeaderSize+size, 0); err != nil {
		p.close()
		return err == unix.ENOENT || err == unix.ENODEV // nobody waits any more
	}
	s.stat.bytesRead.Add(uint64(size))
	return true
}
