package fusefs

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// null is a union that has one directory and answers nothing: what is tested is the decoding before it.
type null struct{ Union[nullNode] }

type nullNode int

func (n nullNode) ID() uint64   { return uint64(n) }
func (n nullNode) Mode() uint32 { return unix.S_IFDIR }

func (null) Node(id uint64) nullNode {
	if id == 1 {
		return 1
	}
	return 0
}
func (null) Forget(uint64, uint64) {}

func name(s string) {
	if checkName([]byte(s)) != 0 {
		panic("the name " + s + " reached the union")
	}
}
func (null) Lookup(_ *Caller, _ nullNode, s string, _ *Attr) (nullNode, error) {
	name(s)
	return 1, nil
}
func (null) Getattr(nullNode, *Attr) error                                     { return nil }
func (null) Setattr(_ *Caller, _ nullNode, _ *SetAttr, _ *Attr) error          { return nil }
func (null) Readlink(nullNode) (string, error)                                 { return "target", nil }
func (null) Unlink(_ *Caller, _ nullNode, s string) error                      { name(s); return nil }
func (null) Rmdir(_ *Caller, _ nullNode, s string) error                       { name(s); return nil }
func (null) Tmpfile(*Caller, nullNode, uint32, *Attr) (nullNode, error)        { return 1, nil }
func (null) Fallocate(*Caller, nullNode, uint32, int64, int64) error           { return nil }
func (null) Fsync(nullNode, bool) error                                        { return nil }
func (null) FsyncDir(nullNode) error                                           { return nil }
func (null) Syncfs() error                                                     { return nil }
func (null) Statfs(nullNode, *unix.Statfs_t) error                             { return nil }
func (null) Removexattr(*Caller, nullNode, string) error                       { return nil }
func (null) Setxattr(*Caller, nullNode, string, []byte, int, bool) error       { return nil }
func (null) Getxattr(_ nullNode, _ string, b []byte) (int, error)              { return len(b), nil }
func (null) Listxattr(_ nullNode, b []byte) (int, error)                       { return len(b), nil }
func (null) ReadAt(_ nullNode, p []byte, _ int64) (int, error)                 { return len(p), nil }
func (null) Seek(_ nullNode, off int64, _ int) (int64, error)                  { return off, nil }
func (null) ReadDir(_ nullNode, off uint64, b []Entry) (int, error)            { return 0, nil }
func (null) Ioctl(_ *Caller, _ nullNode, _ uint32, _, _ []byte) (int32, error) { return 0, nil }
func (null) Link(_ *Caller, _, _ nullNode, s string, _ *Attr) error            { name(s); return nil }
func (null) Mknod(_ *Caller, _ nullNode, s string, _, _ uint32, _ *Attr) (nullNode, error) {
	name(s)
	return 1, nil
}
func (null) Mkdir(_ *Caller, _ nullNode, s string, _ uint32, _ *Attr) (nullNode, error) {
	name(s)
	return 1, nil
}
func (null) Symlink(_ *Caller, _ nullNode, s, _ string, _ *Attr) (nullNode, error) {
	name(s)
	return 1, nil
}
func (null) Rename(_ *Caller, _ nullNode, s string, _ nullNode, to string, _ uint32) error {
	name(s)
	name(to)
	return nil
}
func (null) WriteAt(_ *Caller, _ nullNode, p []byte, off int64, _ bool) (int, error) {
	if off < 0 {
		panic("negative offset")
	}
	return len(p), nil
}
func (null) CopyRange(_ *Caller, _ nullNode, in int64, _ nullNode, out, n int64) (int64, error) {
	if in < 0 || out < 0 || n < 0 {
		panic("negative range")
	}
	return n, nil
}
func (null) Backing(*Caller, nullNode, bool) (int, bool, func(), error) {
	return -1, false, nil, unix.EINVAL
}

// Whatever a message says, serving it neither panics nor answers more than there is room for.
func FuzzRequest(f *testing.F) {
	for op := range opNames {
		for _, body := range []string{"", "name\x00", "a\x00b\x00", string(make([]byte, 8)), string(make([]byte, 40)), string(make([]byte, 120)) + "name\x00other\x00"} {
			f.Add(uint32(op), uint64(1), []byte(body))
		}
	}
	f.Add(uint32(1<<31), uint64(7), []byte(".."))
	o := DefaultOptions(Cached)
	o.Log = func(string, ...any) {}
	modes := map[Mode]*session[nullNode]{}
	for m := Cached; m <= Shared; m++ {
		mo := o
		mo.Mode = m
		modes[m] = newSession[nullNode](null{}, &mo)
		modes[m].conn = newConn(-1, modes[m].serve, modes[m].undo, mo.Log)
	}
	w, err := newWorker(modes[Cached].conn)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, op uint32, node uint64, body []byte) {
		if len(body) > 64<<10 {
			return
		}
		// As the device gives it: in the worker's buffer, aligned, with the header's length.
		msg := w.in[msgStart : msgStart+inHeaderSize+len(body)]
		clear(msg[:inHeaderSize])
		binary.NativeEndian.PutUint32(msg, uint32(len(msg)))
		binary.NativeEndian.PutUint32(msg[4:], op)
		binary.NativeEndian.PutUint64(msg[8:], 2)
		binary.NativeEndian.PutUint64(msg[16:], node)
		copy(msg[inHeaderSize:], body)
		for _, s := range modes {
			r := &w.req
			r.begin(msg)
			e := s.serve(r)
			if n := s.stat.panics.Load(); n != 0 {
				t.Fatalf("opcode %d, body %x: a panic", op, body)
			}
			if r.n < 0 || r.n > len(r.out) {
				t.Fatalf("opcode %d: an answer of %d bytes", op, r.n)
			}
			r.frame(w.buf, e)
		}
	})
}
