package differ

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// fileFlags are those of chattr(1) (linux/fs.h) that a union has to know of; what others a filesystem sets is its affair.
var fileFlags = []struct {
	letter string
	flag   uint32
}{{"i", 0x10}, {"a", 0x20}, {"A", 0x80}}

// flagger is an open file with flags.
type flagger interface {
	getFlags() (uint32, error)
	setFlags(uint32) error
}

func (h *sysHandle) getFlags() (uint32, error) {
	return unix.IoctlGetUint32(h.fd, unix.FS_IOC_GETFLAGS)
}

func (h *sysHandle) setFlags(f uint32) error {
	return unix.IoctlSetPointerInt(h.fd, unix.FS_IOC_SETFLAGS, int(f))
}

func (h *coreHandle) getFlags() (uint32, error) {
	out := make([]byte, 4)
	_, err := h.t.fs.Ioctl(&h.t.caller, h.n, unix.FS_IOC_GETFLAGS, nil, out)
	return binary.NativeEndian.Uint32(out), errno(err)
}

func (h *coreHandle) setFlags(f uint32) error {
	_, err := h.t.fs.Ioctl(&h.t.caller, h.n, unix.FS_IOC_SETFLAGS, binary.NativeEndian.AppendUint32(nil, f), nil)
	return errno(err)
}

// flagsOf are the letters of the flags of a file or directory.
func (v *view) flagsOf(p string) (out string, err error) {
	err = v.with(p, unix.O_RDONLY, func(h handle) error {
		f, err := h.(flagger).getFlags()
		for _, x := range fileFlags {
			if f&x.flag != 0 {
				out += x.letter
			}
		}
		return err
	})
	return fmt.Sprintf("%q", out), err
}

// setFlags sets those with the letters, and takes the others.
func (v *view) setFlags(p, letters string) error {
	return v.with(p, unix.O_RDONLY, func(h handle) error {
		f, err := h.(flagger).getFlags()
		if err != nil {
			return err
		}
		for _, x := range fileFlags {
			f &^= x.flag
			if strings.Contains(letters, x.letter) {
				f |= x.flag
			}
		}
		return h.(flagger).setFlags(f)
	})
}

// forbids: what flags forbid is found out by plyfs, after the kernel has looked at all the rest, or at the write to what it
// let be opened.
func (s *stack) forbids(o Op, want, got string) bool {
	switch {
	case want != "EPERM" || !s.c.has("chattr"):
		return false
	case strings.HasPrefix(got, "E"):
		return true // another reason
	case o.Name == "rmacl" && o.Args[1] == "dacl" && got == "ok":
		return true // of a file: the kernel does not ask
	case got != "ok" || s.v.mode != "":
		return false
	}
	switch o.Name {
	case "open":
		for _, v := range []*view{&s.kernel.view, &s.plyfs.view} {
			_, _ = v.do(op("close", o.Args[0]))
		}
		return o.Args[2] != "r" && o.Args[2] != "t"
	case "write", "append", "copy", "punch", "mwrite": // of nothing
		return true
	}
	return false
}

// has says whether some operation is called name.
func (c *Case) has(name string) bool {
	for _, ops := range append(c.Layers, c.Ops) {
		for _, o := range ops {
			if o.Name == name || o.Name == "as" && o.Args[2] == name {
				return true
			}
		}
	}
	return false
}
