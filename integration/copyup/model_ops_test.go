package copyup

import (
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// actions are what the model does; "" is done after each.
func (w *model) actions() map[string]func(*rapid.T) {
	a := map[string]func(*rapid.T){
		"": func(rt *rapid.T) { w.compare(rt, "now") },
		"remount": func(rt *rapid.T) {
			w.release()
			w.m.Close(w.t)
			w.mount(rt)
		},
		"settle": func(*rapid.T) { settle(w.t, w.m) },
		"holes":  func(rt *rapid.T) { w.holes(rt, w.name(rt, "name"), w.offset(rt, "offset")) },
	}
	w.dataActions(a)
	for _, often := range []string{"write", "truncate", "mapped write", "direct read", "punch", "remount"} {
		a[often+" again"] = a[often]
	}
	w.nameActions(a)
	return a
}

// dataActions change or read what is in a file.
func (w *model) dataActions(a map[string]func(*rapid.T)) {
	a["write"] = func(rt *rapid.T) {
		off, b := w.offset(rt, "offset"), w.bytes(rt, w.length(rt))
		w.file(rt, 0, func(_ *modelSide, f *os.File) error {
			_, err := f.WriteAt(b, off)
			return err
		})
	}
	a["append"] = func(rt *rapid.T) {
		b, name := w.bytes(rt, w.length(rt)), w.name(rt, "name")
		w.both(rt, func(s *modelSide) error {
			f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			if st, err := f.Stat(); err != nil || st.Size() > modelMax {
				return err
			}
			_, err = f.Write(b)
			return err
		})
	}
	a["read"] = func(rt *rapid.T) {
		off, n := w.offset(rt, "offset"), w.length(rt)
		w.file(rt, 0, func(s *modelSide, f *os.File) error {
			b := make([]byte, n)
			k, err := unix.Pread(int(f.Fd()), b, off)
			s.data = b[:max(k, 0)]
			return err
		})
	}
	a["direct read"] = func(rt *rapid.T) {
		w.file(rt, unix.O_DIRECT, func(s *modelSide, f *os.File) (err error) {
			if s == &w.plain {
				// Through the page cache: past it XFS answers EIO where space was zeroed beyond the end before the
				// file grew over it (Linux 6.18).
				s.data, err = os.ReadFile(f.Name())
				return err
			}
			return readDirect(f, &s.data)
		})
	}
	a["direct write"] = func(rt *rapid.T) {
		off, b := w.offset(rt, "offset")&^4095, w.bytes(rt, 3<<12)
		w.file(rt, unix.O_DIRECT, func(_ *modelSide, f *os.File) error {
			_, err := f.WriteAt(b, off)
			return err
		})
	}
	a["mapped write"] = w.mappedWrite
	a["truncate"] = func(rt *rapid.T) {
		size := w.offset(rt, "size")
		w.file(rt, 0, func(_ *modelSide, f *os.File) error { return f.Truncate(size) })
	}
	a["open truncated"] = func(rt *rapid.T) {
		b, name := w.bytes(rt, w.length(rt)), w.name(rt, "name")
		w.both(rt, func(s *modelSide) error {
			f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_WRONLY|os.O_TRUNC, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.Write(b)
			return err
		})
	}
	for name, mode := range map[string]uint32{
		"punch":             unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
		"zero":              unix.FALLOC_FL_ZERO_RANGE,
		"zero, same size":   unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE,
		"allocate":          0,
		"allocate, no size": unix.FALLOC_FL_KEEP_SIZE,
	} {
		a[name] = func(rt *rapid.T) {
			if mode&unix.FALLOC_FL_ZERO_RANGE != 0 && !w.zero {
				rt.Skip("no FALLOC_FL_ZERO_RANGE")
			}
			off, n := w.offset(rt, "offset"), w.length(rt)
			w.file(rt, 0, func(_ *modelSide, f *os.File) error {
				return unix.Fallocate(int(f.Fd()), mode, off, n)
			})
		}
	}
	a["copy range"] = func(rt *rapid.T) {
		from, to := w.offset(rt, "from"), w.offset(rt, "to")
		n, name := w.length(rt), w.name(rt, "source")
		w.file(rt, 0, func(s *modelSide, f *os.File) error {
			src, err := os.Open(filepath.Join(s.dir, name))
			if err != nil {
				return err
			}
			defer src.Close()
			in, out := from, to
			for left := int(n); left > 0; {
				k, err := unix.CopyFileRange(int(src.Fd()), &in, int(f.Fd()), &out, left, 0)
				if err != nil || k == 0 {
					return err
				}
				left -= k
			}
			return nil
		})
	}
	a["fsync"] = func(rt *rapid.T) {
		w.file(rt, 0, func(_ *modelSide, f *os.File) error { return f.Sync() })
	}
}

// mappedWrite writes through a shared mapping, which may be written back later.
func (w *model) mappedWrite(rt *rapid.T) {
	off, b := w.offset(rt, "offset"), w.bytes(rt, w.length(rt))
	sync := w.times || rapid.Bool().Draw(rt, "sync")
	w.file(rt, 0, func(_ *modelSide, f *os.File) error {
		st, err := f.Stat()
		if err != nil || st.Size() <= off {
			return err
		}
		m, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		copy(m[off:], b)
		if sync {
			if err := unix.Msync(m, unix.MS_SYNC); err != nil {
				return err
			}
		}
		return unix.Munmap(m)
	})
}

// nameActions change names and attributes, and what is open.
func (w *model) nameActions(a map[string]func(*rapid.T)) {
	// named does the same to one name of each side.
	named := func(rt *rapid.T, f func(path string) error) {
		name := w.name(rt, "name")
		w.both(rt, func(s *modelSide) error { return f(filepath.Join(s.dir, name)) })
	}
	two := func(rt *rapid.T, f func(from, to string) error) {
		from, to := w.name(rt, "from"), w.name(rt, "to")
		w.both(rt, func(s *modelSide) error { return f(filepath.Join(s.dir, from), filepath.Join(s.dir, to)) })
	}
	a["hold"] = func(rt *rapid.T) {
		if len(w.plain.held) >= 3 {
			rt.Skip("enough are open")
		}
		named(rt, func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err == nil {
				s := &w.plain
				if path[:len(w.view.dir)] == w.view.dir {
					s = &w.view
				}
				s.held = append(s.held, f)
			}
			return err
		})
	}
	a["let go"] = func(*rapid.T) { w.release() }
	a["create"] = func(rt *rapid.T) {
		b := w.bytes(rt, w.length(rt))
		named(rt, func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.Write(b)
			return err
		})
	}
	a["remove"] = func(rt *rapid.T) {
		named(rt, os.Remove)
	}
	a["rename"] = func(rt *rapid.T) { two(rt, os.Rename) }
	a["exchange"] = func(rt *rapid.T) {
		two(rt, func(from, to string) error {
			return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
		})
	}
	a["link"] = func(rt *rapid.T) { two(rt, os.Link) }
	a["chmod"] = func(rt *rapid.T) {
		mode := rapid.SampledFrom([]uint32{0o600, 0o644, 0o4755, 0o2711}).Draw(rt, "mode")
		named(rt, func(path string) error { return unix.Chmod(path, mode) })
	}
	a["chown"] = func(rt *rapid.T) {
		uid := rapid.IntRange(0, 2).Draw(rt, "user")
		named(rt, func(path string) error { return os.Chown(path, uid, uid) })
	}
	a["utimens"] = func(rt *rapid.T) {
		named(rt, func(path string) error { return os.Chtimes(path, time.Time{}, modelTime) })
	}
	a["attribute"] = func(rt *rapid.T) {
		name := rapid.SampledFrom([]string{"user.a", "user.b"}).Draw(rt, "attribute")
		if rapid.Bool().Draw(rt, "remove") {
			named(rt, func(path string) error { return unix.Removexattr(path, name) })
			return
		}
		named(rt, func(path string) error { return unix.Setxattr(path, name, []byte(filepath.Base(path)), 0) })
	}
}
