package conform

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

var attrs = []string{`f file lower
 m file 0644
 d dir
 f dir/in 1
 l link file
 l broken nowhere
 p fifo
 f user mine
 u user 1000 1000
 F big 1M`}

func TestTimes(t *testing.T) {
	everywhere(t, attrs, func(t *testing.T, v *view) {
		a, m := unix.Timespec{Sec: 1234567890, Nsec: 123456789}, unix.Timespec{Sec: 987654321, Nsec: 987654321}
		times := func(name string) (unix.Timespec, unix.Timespec) {
			st := stat(t, v.path(name))
			return st.Atim, st.Mtim
		}
		for _, name := range []string{"file", "dir", "link", "broken", "fifo", "big", "."} {
			set := func(a, m unix.Timespec) {
				t.Helper()
				if err := unix.UtimesNanoAt(unix.AT_FDCWD, v.path(name), []unix.Timespec{a, m}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			set(a, m)
			if ga, gm := times(name); ga != a || gm != m {
				t.Errorf("%s: %v %v, want %v %v", name, ga, gm, a, m)
			}
			omit, now := unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Nsec: unix.UTIME_NOW}
			set(omit, unix.Timespec{Sec: 5, Nsec: 1})
			if ga, gm := times(name); ga != a || gm != (unix.Timespec{Sec: 5, Nsec: 1}) {
				t.Errorf("%s: %v %v after setting the mtime alone", name, ga, gm)
			}
			before := time.Now().Add(-time.Second)
			set(now, omit)
			if ga, gm := times(name); time.Unix(ga.Unix()).Before(before) || gm != (unix.Timespec{Sec: 5, Nsec: 1}) {
				t.Errorf("%s: %v %v after setting the atime to now", name, ga, gm)
			}
			set(unix.Timespec{Sec: -86400, Nsec: 7}, unix.Timespec{Sec: 1 << 33, Nsec: 999999999})
			if ga, gm := times(name); ga != (unix.Timespec{Sec: -86400, Nsec: 7}) || gm != (unix.Timespec{Sec: 1 << 33, Nsec: 999999999}) {
				t.Errorf("%s: %v %v, times before 1970 and after 2038", name, ga, gm)
			}
			set(a, m)
		}
		if st := stat(t, v.path("file")); st.Ctim.Sec < time.Now().Unix()-600 {
			t.Errorf("change time %v after a change", st.Ctim)
		}
		v.renew(t)
		for _, name := range []string{"file", "dir", "link", "broken", "fifo", "big"} {
			if _, gm := times(name); gm != m {
				t.Errorf("%s: mtime %v after a remount, want %v", name, gm, m)
			}
		}
		asUser(1000, 1000, nil, func() {
			ts := []unix.Timespec{a, m}
			wants(t, "own file", unix.UtimesNanoAt(unix.AT_FDCWD, v.path("user"), ts, 0), 0)
			wants(t, "another's file", unix.UtimesNanoAt(unix.AT_FDCWD, v.path("file"), ts, 0), unix.EPERM)
			wants(t, "another's file, to now", unix.UtimesNanoAt(unix.AT_FDCWD, v.path("file"), nil, 0), unix.EACCES)
		})
	})
}

func TestTimesMoveWithChanges(t *testing.T) {
	everywhere(t, attrs, func(t *testing.T, v *view) {
		old := unix.Timespec{Sec: 1000, Nsec: 5}
		back := func(name string) {
			t.Helper()
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, v.path(name), []unix.Timespec{old, old}, 0))
		}
		moved := func(what, name string, want bool) {
			t.Helper()
			if got := stat(t, v.path(name)).Mtim != old; got != want {
				t.Errorf("%s: mtime of %s changed: %v, want %v", what, name, got, want)
			}
		}
		back("file")
		fd := openFD(t, v.path("file"), unix.O_RDWR, 0)
		_, err := unix.Pwrite(fd, []byte("x"), 0)
		must(t, err)
		moved("write", "file", true)
		back("file")
		must(t, unix.Ftruncate(fd, 3))
		moved("truncate", "file", true)
		back("file")
		must(t, unix.Chmod(v.path("file"), 0o600))
		moved("chmod", "file", false)
		must(t, unix.Setxattr(v.path("file"), "user.a", []byte("1"), 0))
		moved("setxattr", "file", false)

		back("dir")
		must(t, os.WriteFile(v.path("dir/in"), []byte("again"), 0o644))
		moved("write to a child", "dir", false)
		must(t, os.WriteFile(v.path("dir/new"), nil, 0o644))
		moved("create", "dir", true)
		back("dir")
		must(t, os.Chmod(v.path("dir/new"), 0o600))
		moved("chmod of a child", "dir", false)
		must(t, os.Remove(v.path("dir/in")))
		moved("unlink", "dir", true)
		back("dir")
		must(t, os.Rename(v.path("dir/new"), v.path("dir/newer")))
		moved("rename", "dir", true)
		back("dir")
		must(t, os.Mkdir(v.path("dir/sub"), 0o755))
		moved("mkdir", "dir", true)
		back("dir")
		must(t, os.Symlink("x", v.path("dir/l")))
		moved("symlink", "dir", true)
		back("dir")
		must(t, os.Link(v.path("file"), v.path("dir/hard")))
		moved("link", "dir", true)
	})
}

func TestAccessTime(t *testing.T) {
	everywhere(t, attrs, func(t *testing.T, v *view) {
		if v.kind == "plain" {
			return // shown by what its own filesystem was mounted with
		}
		must(t, os.WriteFile(v.path("new"), []byte("some"), 0o644), os.Chmod(v.path("file"), 0o600))
		v.settle(t) // an unfinished file knows no O_NOATIME
		for _, name := range []string{"new", "file"} {
			// relatime: an access time older than the modification is brought up to date ...
			old, later := unix.Timespec{Sec: 1000}, unix.Timespec{Sec: 2000}
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, v.path(name), []unix.Timespec{old, later}, 0))
			content(t, v.path(name))
			if got := stat(t, v.path(name)).Atim; got.Sec <= 2000 {
				t.Errorf("%s: access time %v after a read, want now", name, got)
			}
			// ... a newer one is left, and O_NOATIME leaves any.
			recent := stat(t, v.path(name)).Atim
			content(t, v.path(name))
			if got := stat(t, v.path(name)).Atim; got != recent {
				t.Errorf("%s: access time %v after a read, want it left at %v", name, got, recent)
			}
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, v.path(name), []unix.Timespec{old, later}, 0))
			fd := openFD(t, v.path(name), unix.O_RDONLY|unix.O_NOATIME, 0)
			_, err := unix.Read(fd, make([]byte, 10))
			must(t, err)
			if got := stat(t, v.path(name)).Atim; got != old {
				t.Errorf("%s: access time %v after a read with O_NOATIME, want %v", name, got, old)
			}
		}
	})
}

func TestStatx(t *testing.T) {
	everywhere(t, attrs, func(t *testing.T, v *view) {
		get := func(name string) unix.Statx_t {
			var st unix.Statx_t
			must(t, unix.Statx(unix.AT_FDCWD, v.path(name), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st))
			return st
		}
		now := time.Now().Unix()
		must(t, os.WriteFile(v.path("new"), []byte("some"), 0o644))
		for _, name := range []string{"file", "dir", "link", "fifo", "new"} {
			st := get(name)
			if st.Mask&unix.STATX_BTIME == 0 || st.Btime.Sec < now-600 || st.Btime.Sec > now+60 {
				t.Errorf("%s: birth time %v (mask %#x)", name, st.Btime, st.Mask)
			}
			old := stat(t, v.path(name))
			if st.Ino != old.Ino || uint32(st.Mode) != old.Mode || int64(st.Size) != old.Size || st.Nlink != uint32(old.Nlink) {
				t.Errorf("%s: statx %+v differs from stat %+v", name, st, old)
			}
		}
		born := get("new").Btime
		must(t, os.Chmod(v.path("new"), 0o600), os.WriteFile(v.path("new"), []byte("other"), 0o644))
		if got := get("new").Btime; got != born {
			t.Errorf("birth time %v after a change, was %v", got, born)
		}
	})
}

func TestStatfs(t *testing.T) {
	everywhere(t, attrs, func(t *testing.T, v *view) {
		var st, under unix.Statfs_t
		must(t, unix.Statfs(v.dir, &st))
		if st.Namelen != 255 || st.Bsize == 0 || st.Blocks == 0 || st.Bavail == 0 || st.Files == 0 {
			t.Errorf("%+v", st)
		}
		if v.l == nil {
			return
		}
		must(t, unix.Statfs(v.l.Upper, &under))
		if st.Blocks != under.Blocks || st.Bsize != under.Bsize || st.Files != under.Files {
			t.Errorf("%+v, the upper's filesystem %+v", st, under)
		}
		fd := openFD(t, v.path("dir/in"), unix.O_RDONLY, 0)
		must(t, unix.Fstatfs(fd, &st))
		if st.Blocks != under.Blocks {
			t.Errorf("of a file: %+v", st)
		}
	})
}

func TestOwnerAndMode(t *testing.T) {
	everywhere(t, attrs, func(t *testing.T, v *view) {
		for _, name := range []string{"file", "dir", "fifo", "big", "user"} {
			for _, m := range []uint32{0o600, 0o1777, 0o4711, 0o2775, 0, 0o7777, 0o644} {
				must(t, unix.Chmod(v.path(name), m))
				wantMode(t, v.path(name), m)
			}
			must(t, unix.Lchown(v.path(name), 12, 34))
			if st := stat(t, v.path(name)); st.Uid != 12 || st.Gid != 34 {
				t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
			}
			must(t, unix.Lchown(v.path(name), -1, 56))
			if st := stat(t, v.path(name)); st.Uid != 12 || st.Gid != 56 {
				t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
			}
		}
		must(t, unix.Lchown(v.path("link"), 1000, 1001))
		if st := stat(t, v.path("link")); st.Uid != 1000 || st.Gid != 1001 {
			t.Errorf("the link belongs to %d:%d", st.Uid, st.Gid)
		}
		if st := stat(t, v.path("file")); st.Uid != 12 {
			t.Errorf("the link's target belongs to %d now", st.Uid)
		}
		must(t, unix.Lchown(v.path("user"), 1000, 1000), unix.Chmod(v.path("user"), 0o644))
		asUser(1000, 1000, []int{1002}, func() {
			wants(t, "chown own file to another", unix.Chown(v.path("user"), 0, -1), unix.EPERM)
			wants(t, "chgrp to an own group", unix.Chown(v.path("user"), -1, 1002), 0)
			wants(t, "chgrp to a foreign group", unix.Chown(v.path("user"), -1, 1003), unix.EPERM)
			wants(t, "chmod another's", unix.Chmod(v.path("file"), 0o777), unix.EPERM)
			wants(t, "chmod own", unix.Chmod(v.path("user"), 0o2755), 0)
			wantMode(t, v.path("user"), 0o2755)
		})
		must(t, unix.Lchown(v.path("user"), 1000, 1003), unix.Chmod(v.path("user"), 0o644))
		asUser(1000, 1000, []int{1002}, func() {
			// Not in the file's group: the set-group-id bit is not for the taking.
			wants(t, "chmod g+s", unix.Chmod(v.path("user"), 0o2755), 0)
			wantMode(t, v.path("user"), 0o755)
		})
	})
}

// TestSetID: set-id bits and capabilities go with what somebody unprivileged changes, and stay
// with what root does.
func TestSetID(t *testing.T) {
	harness.NeedRoot(t) // to keep the bits when writing: root of a user namespace does not
	layers := []string{"f target 0123456789\nu target 0 0\nF large 1M"}
	everywhere(t, layers, func(t *testing.T, v *view) {
		write := func(path string) error {
			fd, err := unix.Open(path, unix.O_WRONLY, 0)
			if err == nil {
				_, err = unix.Write(fd, []byte("x"))
				unix.Close(fd)
			}
			return err
		}
		changes := map[string]func(path string) error{
			"write":    write,
			"truncate": func(path string) error { return unix.Truncate(path, 3) },
			"O_TRUNC": func(path string) error {
				fd, err := unix.Open(path, unix.O_WRONLY|unix.O_TRUNC, 0)
				unix.Close(fd)
				return err
			},
			"fallocate": func(path string) error {
				fd, err := unix.Open(path, unix.O_WRONLY, 0)
				if err == nil {
					err = unix.Fallocate(fd, 0, 0, 20_000)
					unix.Close(fd)
				}
				return err
			},
			"chown":            func(path string) error { return unix.Chown(path, -1, 1001) },
			"chown of nothing": func(path string) error { return unix.Chown(path, -1, -1) },
		}
		for what, change := range changes {
			for _, name := range []string{"lower", "upper"} {
				if name == "lower" && what != "write" {
					continue
				}
				t.Run(what+" "+name, func(t *testing.T) {
					path := v.path("target")
					if name == "upper" {
						path = v.path("new")
						must(t, os.WriteFile(path, []byte("0123456789"), 0o644))
					}
					reset := func(mode uint32) {
						must(t, unix.Chown(path, 1000, 1000), unix.Chmod(path, mode), unix.Setxattr(path, "security.capability", netRaw, 0))
						if mode&0o7000 != 0 {
							wantMode(t, path, mode)
						}
					}
					reset(0o6777)
					asUser(1000, 1000, []int{1001}, func() { wants(t, what, change(path), 0) })
					wantMode(t, path, 0o777)
					wantCapability(t, path, false)
					reset(0o2666) // not executable by the group: no set-id bit but a lock mark
					asUser(1000, 1000, []int{1001}, func() { wants(t, what, change(path), 0) })
					wantMode(t, path, 0o2666)
					reset(0o6777)
					must(t, change(path))
					switch {
					case what == "chown", what == "chown of nothing":
						wantMode(t, path, 0o777)
					default:
						wantMode(t, path, 0o6777)
					}
				})
			}
		}
	})
}

// netRaw is the value of security.capability for cap_net_raw+ep.
var netRaw = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func wantCapability(t *testing.T, path string, want bool) {
	t.Helper()
	_, err := unix.Getxattr(path, "security.capability", make([]byte, 64))
	if got := err == nil; got != want {
		t.Errorf("%s has a capability: %v (%v), want %v", path, got, err, want)
	}
}

func TestSetIDOnMapping(t *testing.T) {
	everywhere(t, []string{"F large 1M"}, func(t *testing.T, v *view) {
		path := v.path("large")
		must(t, unix.Chown(path, 1000, 1000), unix.Chmod(path, 0o6777))
		asUser(1000, 1000, nil, func() {
			fd, err := unix.Open(path, unix.O_RDWR, 0)
			wants(t, "open", err, 0)
			n, err := unix.Pwrite(fd, harness.Bytes(200_000), 1000)
			if n != 200_000 || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
			unix.Close(fd)
		})
		wantMode(t, path, 0o777)
	})
}
