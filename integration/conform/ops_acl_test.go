package conform

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Access lists are written as setfacl does, short: "u::rwx u:1001:rw- g::r-x m::rwx o::---".

var aclTags = map[string]uint16{"u": 1, "U": 2, "g": 4, "G": 8, "m": 0x10, "o": 0x20}

// aclBlob returns the attribute's value (linux/posix_acl_xattr.h).
func aclBlob(text string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range strings.Fields(text) {
		f := strings.Split(e, ":")
		tag, id := f[0], uint32(0xffffffff)
		if f[1] != "" {
			tag, id = strings.ToUpper(tag), uint32(number(f[1]))
		}
		perm := uint16(0)
		for i, c := range "xwr" {
			if strings.ContainsRune(f[2], c) {
				perm |= 1 << i
			}
		}
		b = binary.LittleEndian.AppendUint16(b, aclTags[tag])
		b = binary.LittleEndian.AppendUint16(b, perm)
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return b
}

// acl returns a list in words, "" if there is none.
func acl(t *testing.T, path, kind string) string {
	t.Helper()
	b := make([]byte, 4096)
	n, err := unix.Lgetxattr(path, "system.posix_acl_"+kind, b)
	if err == unix.ENODATA {
		return ""
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	var out []string
	for b = b[4:n]; len(b) >= 8; b = b[8:] {
		for name, tag := range aclTags {
			if tag != binary.LittleEndian.Uint16(b) {
				continue
			}
			perm, id := binary.LittleEndian.Uint16(b[2:]), ""
			if name == "U" || name == "G" {
				id = fmt.Sprint(binary.LittleEndian.Uint32(b[4:]))
			}
			bits := []byte("---")
			for i, c := range "xwr" {
				if perm&(1<<i) != 0 {
					bits[2-i] = byte(c)
				}
			}
			out = append(out, strings.ToLower(name)+":"+id+":"+string(bits))
		}
	}
	return strings.Join(out, " ")
}

func setACL(path, kind, text string) error {
	return unix.Lsetxattr(path, "system.posix_acl_"+kind, aclBlob(text), 0)
}

func wantACL(t *testing.T, path, kind, want string) {
	t.Helper()
	if got := acl(t, path, kind); got != want {
		t.Errorf("%s: %s list is %q, want %q", path, kind, got, want)
	}
}

// TestDefaultACL: what is made in a directory with a default list inherits it, in place of the umask: in
// a directory of a lower, of the upper, and where a whiteout was.
func TestDefaultACL(t *testing.T) {
	const list = "u::rwx u:1001:rwx g::r-x m::rwx o::---"
	everywhere(t, []string{"f lower/gone 1\nf lower/gonedir/x 1\nf both/bottom 1"}, func(t *testing.T, v *view) {
		must(t, setACL(v.path("lower"), "default", list), setACL(v.path("both"), "default", list))
		v.sink(t)
		must(t, os.Mkdir(v.path("upper"), 0o755), setACL(v.path("upper"), "default", list))
		must(t, os.Remove(v.path("lower/gone")), os.RemoveAll(v.path("lower/gonedir")))
		for _, dir := range []string{"lower", "both", "upper"} {
			withUmask(0o077, func() {
				p := v.path(dir)
				for _, name := range []string{"file", "gone"} {
					fd, err := unix.Open(p+"/"+name, unix.O_CREAT|unix.O_WRONLY, 0o666)
					wants(t, "open", err, 0)
					unix.Close(fd)
				}
				for _, name := range []string{"dir", "gonedir"} {
					wants(t, "mkdir", unix.Mkdir(p+"/"+name, 0o777), 0)
				}
				wants(t, "mkfifo", unix.Mkfifo(p+"/fifo", 0o606), 0)
				wants(t, "mknod", unix.Mknod(p+"/node", unix.S_IFREG|0o640, 0), 0)
				wants(t, "symlink", unix.Symlink("x", p+"/link"), 0)
				fd, err := unix.Open(p, unix.O_TMPFILE|unix.O_RDWR, 0o666)
				wants(t, "O_TMPFILE", err, 0)
				wants(t, "link", unix.Linkat(fd, "", unix.AT_FDCWD, p+"/tmp", unix.AT_EMPTY_PATH), 0)
				unix.Close(fd)
			})
		}
		for range 2 {
			for _, dir := range []string{"lower", "both", "upper"} {
				p := v.path(dir)
				for _, name := range []string{"/file", "/gone", "/tmp"} {
					wantACL(t, p+name, "access", "u::rw- u:1001:rwx g::r-x m::rw- o::---")
					wantMode(t, p+name, 0o660)
				}
				wantACL(t, p+"/fifo", "access", "u::rw- u:1001:rwx g::r-x m::--- o::---")
				wantACL(t, p+"/node", "access", "u::rw- u:1001:rwx g::r-x m::r-- o::---")
				wantMode(t, p+"/node", 0o640)
				for _, name := range []string{"/dir", "/gonedir"} {
					wantACL(t, p+name, "access", list)
					wantACL(t, p+name, "default", list)
					wantMode(t, p+name, 0o770)
				}
				wantMode(t, p+"/link", 0o777)
			}
			v.renew(t)
		}
		// Without a mask or named entries the list is only other mode bits.
		must(t, setACL(v.path("upper"), "default", "u::rwx g::rw- o::r--"))
		withUmask(0o077, func() { wants(t, "mkdir", unix.Mkdir(v.path("upper/plain"), 0o777), 0) })
		wantACL(t, v.path("upper/plain"), "access", "")
		wantMode(t, v.path("upper/plain"), 0o764)
		// And none: the umask counts again.
		must(t, unix.Removexattr(v.path("upper"), "system.posix_acl_default"))
		withUmask(0o077, func() { wants(t, "mkdir", unix.Mkdir(v.path("upper/bare"), 0o777), 0) })
		wantMode(t, v.path("upper/bare"), 0o700)
	})
}

// TestACLMask: the group bits of the mode are the list's mask, whichever is changed.
func TestACLMask(t *testing.T) {
	const list = "u::rw- u:1001:rwx g::r-- m::rwx o::---"
	everywhere(t, []string{"f lower text\nf kept text\nd dir"}, func(t *testing.T, v *view) {
		must(t, setACL(v.path("lower"), "access", list), setACL(v.path("kept"), "access", list))
		v.sink(t)
		must(t, os.WriteFile(v.path("upper"), []byte("text"), 0o644), setACL(v.path("upper"), "access", list))
		wantACL(t, v.path("lower"), "access", list)
		// A copy-up takes it along.
		fd := openFD(t, v.path("kept"), unix.O_WRONLY, 0)
		_, err := unix.Write(fd, []byte("T"))
		must(t, err)
		wantACL(t, v.path("kept"), "access", list)
		for _, name := range []string{"lower", "upper", "kept"} {
			p := v.path(name)
			wantMode(t, p, 0o670)
			must(t, unix.Chmod(p, 0o640))
			wantACL(t, p, "access", strings.Replace(list, "m::rwx", "m::r--", 1))
			wantMode(t, p, 0o640)
			must(t, setACL(p, "access", "u::r-- u:1001:rw- g::rwx m::-w- o::r--"))
			wantMode(t, p, 0o424)
			must(t, unix.Chmod(p, 0o2777))
			wantACL(t, p, "access", "u::rwx u:1001:rw- g::rwx m::rwx o::rwx")
			wantMode(t, p, 0o2777)
			if got := listXattrs(t, p); got != "system.posix_acl_access" {
				t.Errorf("%s lists %q", name, got)
			}
		}
		for range 2 {
			for _, name := range []string{"lower", "upper", "kept"} {
				wantACL(t, v.path(name), "access", "u::rwx u:1001:rw- g::rwx m::rwx o::rwx")
			}
			must(t, os.Rename(v.path("kept"), v.path("dir/kept")), os.Rename(v.path("dir/kept"), v.path("kept")))
			v.renew(t)
		}
		p := v.path("upper")
		must(t, unix.Removexattr(p, "system.posix_acl_access"))
		wantACL(t, p, "access", "")
		wantMode(t, p, 0o2777)
		// A list that says no more than the mode does is none.
		must(t, setACL(p, "access", "u::rw- g::r-- o::---"))
		wantACL(t, p, "access", "")
		wantMode(t, p, 0o2640)
		wants(t, "no such list", unix.Removexattr(v.path("dir"), "system.posix_acl_default"), 0)
		wants(t, "a default list of a file", setACL(p, "default", list), unix.EACCES)
		wants(t, "nonsense", unix.Setxattr(p, "system.posix_acl_access", []byte("nonsense"), 0), unix.EOPNOTSUPP)
		wants(t, "a list without a mask", setACL(p, "access", "u::rw- u:1001:rwx g::r-- o::---"), unix.EINVAL)
	})
}

// TestACLDecides: the list says who may do what.
func TestACLDecides(t *testing.T) {
	lowers := []string{"f read text\nf denied text\nf masked text\nf grouped text\nf dir/in text\nm read 600\nm masked 600\nm grouped 600\nm dir 700"}
	everywhere(t, lowers, func(t *testing.T, v *view) {
		must(t,
			setACL(v.path("read"), "access", "u::rw- u:1001:r-- g::--- m::rwx o::---"),
			setACL(v.path("denied"), "access", "u::rw- u:1001:--- g::r-- m::rwx o::rw-"),
			setACL(v.path("masked"), "access", "u::rw- u:1001:rw- g::--- m::r-- o::---"),
			setACL(v.path("grouped"), "access", "u::rw- g::--- g:2000:rw- m::rwx o::---"),
			setACL(v.path("dir"), "access", "u::rwx u:1001:r-x g::--- m::rwx o::---"))
		try := func(name string, flags int) error { return tryOpen(v.path(name), flags) }
		check := func(when string) {
			asUser(1001, 1001, nil, func() {
				wants(t, when+": read by the list", try("read", unix.O_RDONLY), 0)
				wants(t, when+": write by the list", try("read", unix.O_WRONLY), unix.EACCES)
				wants(t, when+": denied by the list", try("denied", unix.O_RDONLY), unix.EACCES)
				wants(t, when+": within the mask", try("masked", unix.O_RDONLY), 0)
				wants(t, when+": masked", try("masked", unix.O_RDWR), unix.EACCES)
				wants(t, when+": not in the group", try("grouped", unix.O_RDONLY), unix.EACCES)
				wants(t, when+": below a directory", try("dir/in", unix.O_RDONLY), 0)
				wants(t, when+": create in it", unix.Mkdir(v.path("dir/new"), 0o755), unix.EACCES)
				wants(t, when+": change the list", setACL(v.path("read"), "access", "u::rw- u:1001:rwx g::--- m::rwx o::---"), unix.EPERM)
				wants(t, when+": access(2)", unix.Faccessat(unix.AT_FDCWD, v.path("read"), unix.R_OK, unix.AT_EACCESS), 0)
			})
			asUser(1002, 1002, []int{2000}, func() {
				wants(t, when+": by the group", try("grouped", unix.O_RDWR), 0)
				wants(t, when+": nobody's", try("read", unix.O_RDONLY), unix.EACCES)
				wants(t, when+": everybody's", try("denied", unix.O_RDWR), 0)
				wants(t, when+": below a directory", try("dir/in", unix.O_RDONLY), unix.EACCES)
			})
		}
		check("upper")
		v.renew(t)
		check("again")
		v.sink(t)
		check("lower")
		// Who is not in the file's group loses the set-group-id bit with the list.
		must(t, unix.Chown(v.path("read"), 1001, 2000), unix.Chmod(v.path("read"), 0o2750))
		asUser(1001, 1001, nil, func() {
			wants(t, "own list", setACL(v.path("read"), "access", "u::rwx u:1002:r-- g::r-x m::r-x o::---"), 0)
		})
		wantMode(t, v.path("read"), 0o750)
		asUser(1002, 1002, nil, func() { wants(t, "the new list", try("read", unix.O_RDONLY), 0) })
	})
}
