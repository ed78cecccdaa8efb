package layer

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

func keepAlive(b []byte) { runtime.KeepAlive(b) }

// Dirent is one entry of a directory. Type is DT_UNKNOWN on filesystems that do not say.
type Dirent struct {
	Name string
	Ino  uint64
	Type uint8
}

var direntBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// ReadDirFunc calls f for each entry of the directory fd but "." and "..". name is
// valid until f returns. The directory is opened anew, so that fd may be O_PATH and in
// use elsewhere.
func ReadDirFunc(fd int, f func(name []byte, ino uint64, typ uint8) error) error {
	own, err := Open(fd, "", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOATIME, 0)
	if err == unix.EPERM {
		own, err = Open(fd, "", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		return err
	}
	defer unix.Close(own)
	bp := direntBuffers.Get().(*[]byte)
	defer direntBuffers.Put(bp)
	for {
		n, err := unix.Getdents(own, *bp)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n <= 0 {
			return nil
		}
		if err := parseDirents((*bp)[:n], f); err != nil {
			return err
		}
	}
}

// parseDirents walks over struct linux_dirent64 records.
func parseDirents(b []byte, f func(name []byte, ino uint64, typ uint8) error) error {
	const header = 19
	for len(b) > header {
		ino := binary.NativeEndian.Uint64(b)
		size := int(binary.NativeEndian.Uint16(b[16:]))
		if size <= header || size > len(b) {
			return unix.EIO
		}
		name := b[header:size]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		typ := b[18]
		b = b[size:]
		if len(name) == 0 || string(name) == "." || string(name) == ".." {
			continue
		}
		if err := f(name, ino, typ); err != nil {
			return err
		}
	}
	return nil
}

// ReadDir returns all entries of the directory fd but "." and "..".
func ReadDir(fd int) ([]Dirent, error) {
	var out []Dirent
	err := ReadDirFunc(fd, func(name []byte, ino uint64, typ uint8) error {
		out = append(out, Dirent{string(name), ino, typ})
		return nil
	})
	return out, err
}
