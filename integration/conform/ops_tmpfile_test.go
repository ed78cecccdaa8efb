package conform

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// TestTmpfile: files without a name, and the two ways to give them one.
func TestTmpfile(t *testing.T) {
	everywhere(t, []string{"f both/top 1\nw both/gone", "f both/gone 2\nf both/there 3\nd low"}, func(t *testing.T, v *view) {
		for _, dir := range []string{"both", "low", "."} {
			before := list(t, v.path(dir))
			fd := openFD(t, v.path(dir), unix.O_TMPFILE|unix.O_RDWR, 0o640)
			var st unix.Stat_t
			must(t, unix.Fstat(fd, &st))
			if st.Nlink != 0 || st.Mode != unix.S_IFREG|0o640 || st.Size != 0 {
				t.Errorf("a new one: %+v", st)
			}
			data := harness.Bytes(300_000)
			n, err := unix.Pwrite(fd, data, 0)
			if must(t, err); n != len(data) {
				t.Fatalf("wrote %d", n)
			}
			if got := list(t, v.path(dir)); got != before {
				t.Errorf("has a name: %s", got)
			}
			must(t, unix.Fsetxattr(fd, "user.a", []byte("1"), 0), unix.Fchown(fd, 7, 8), unix.Fchmod(fd, 0o600))
			name := v.path(dir + "/named")
			link := func(to string) error {
				return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
			}
			if dir == "both" {
				wants(t, "over a name", link(v.path("both/there")), unix.EEXIST)
				name = v.path("both/gone")
			}
			wants(t, "/proc/self/fd", link(name), 0)
			must(t, unix.Fstat(fd, &st))
			if named := stat(t, name); st.Nlink != 1 || named.Ino != st.Ino || named.Uid != 7 || named.Gid != 8 || named.Mode != unix.S_IFREG|0o600 {
				t.Errorf("%+v, by its name %+v", st, named)
			}
			same(t, name, data)
			_, err = unix.Pwrite(fd, []byte("after"), 0)
			must(t, err)
			copy(data, "after")
			same(t, name, data)
			if got, err := getXattr(name, "user.a"); got != "1" {
				t.Errorf("attribute %q, %v", got, err)
			}

			fd = openFD(t, v.path(dir), unix.O_TMPFILE|unix.O_WRONLY, 0o644)
			_, err = unix.Write(fd, []byte("second"))
			must(t, err)
			wants(t, "AT_EMPTY_PATH", unix.Linkat(fd, "", unix.AT_FDCWD, v.path(dir+"/empty"), unix.AT_EMPTY_PATH), 0)
			wants(t, "a second name", unix.Linkat(fd, "", unix.AT_FDCWD, v.path("second-"+dir), unix.AT_EMPTY_PATH), 0)
			must(t, unix.Fstat(fd, &st))
			if st.Nlink != 2 {
				t.Errorf("%d links, want 2", st.Nlink)
			}

			fd = openFD(t, v.path(dir), unix.O_TMPFILE|unix.O_EXCL|unix.O_RDWR, 0o644)
			wants(t, "O_EXCL", unix.Linkat(fd, "", unix.AT_FDCWD, v.path(dir+"/excl"), unix.AT_EMPTY_PATH), unix.ENOENT)
		}
		wants(t, "read-only", tryOpen(v.dir, unix.O_TMPFILE|unix.O_RDONLY), unix.EINVAL)
		wants(t, "in a file", tryOpen(v.path("both/there"), unix.O_TMPFILE|unix.O_RDWR), unix.ENOTDIR)
		wants(t, "in nothing", tryOpen(v.path("nothing"), unix.O_TMPFILE|unix.O_RDWR), unix.ENOENT)
		v.renew(t)
		for _, dir := range []string{"both", "low", "."} {
			if got := content(t, v.path(dir+"/empty")); got != "second" {
				t.Errorf("%q after a remount", got)
			}
			if got := stat(t, v.path("second-"+dir)); got.Ino != stat(t, v.path(dir+"/empty")).Ino || got.Nlink != 2 {
				t.Errorf("after a remount: %+v", got)
			}
		}
	})
}

// TestReflink: FUSE has no cloning. It says so with the errno that makes cp copy.
func TestReflink(t *testing.T) {
	everywhere(t, []string{"F big 1M\nf small text"}, func(t *testing.T, v *view) {
		for _, name := range []string{"big", "small"} {
			src, dst := openFD(t, v.path(name), unix.O_RDONLY, 0), openFD(t, v.path(name+".clone"), unix.O_RDWR|unix.O_CREAT, 0o644)
			if v.plyfs() {
				wants(t, "FICLONE", unix.IoctlFileClone(dst, src), unix.EOPNOTSUPP)
				wants(t, "FICLONERANGE", unix.IoctlFileCloneRange(dst, &unix.FileCloneRange{Src_fd: int64(src)}), unix.EOPNOTSUPP)
				if err := exec.Command("cp", "--reflink=always", v.path(name), v.path(name+".always")).Run(); err == nil {
					t.Error("cp --reflink=always: nothing said")
				}
			}
			if out, err := exec.Command("cp", "--reflink=auto", v.path(name), v.path(name+".auto")).CombinedOutput(); err != nil {
				t.Errorf("cp --reflink=auto: %v\n%s", err, out)
			}
			same(t, v.path(name+".auto"), []byte(content(t, v.path(name))))
		}
	})
}

// TestExec: programs run from the mount, and cannot be written meanwhile.
func TestExec(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	program, err := os.ReadFile(sleep)
	must(t, err)
	everywhere(t, []string{"f script #!/bin/sh\\necho from $1\nm script 755\nf plain #!/bin/sh\\necho no"}, func(t *testing.T, v *view) {
		must(t, os.WriteFile(v.path("sleep"), program, 0o755), os.WriteFile(v.path("other"), program, 0o755))
		v.sink(t)
		must(t, os.WriteFile(v.path("new"), program, 0o755), os.Chmod(v.path("other"), 0o700))
		out, err := exec.Command(v.path("script"), "a lower").CombinedOutput()
		if err != nil || string(out) != "from a lower\n" {
			t.Errorf("%q, %v", out, err)
		}
		_, err = exec.Command(v.path("plain")).CombinedOutput()
		wants(t, "without the mode bit", err, unix.EACCES)
		for _, name := range []string{"sleep", "other", "new"} {
			cmd := exec.Command(v.path(name), "1000")
			must(t, cmd.Start())
			wants(t, name+": write a program that runs", tryOpen(v.path(name), unix.O_WRONLY), unix.ETXTBSY)
			wants(t, name+": truncate it", unix.Truncate(v.path(name), 0), unix.ETXTBSY)
			must(t, unix.Chmod(v.path(name), 0o711), unix.Unlink(v.path(name)))
			wants(t, name+": it goes on", unix.Kill(cmd.Process.Pid, 0), 0)
			must(t, cmd.Process.Kill())
			_ = cmd.Wait()
		}
		must(t, os.WriteFile(v.path("new"), program, 0o755))
		fd := openFD(t, v.path("new"), unix.O_WRONLY, 0)
		wants(t, "run what is being written", exec.Command(v.path("new"), "0").Run(), unix.ETXTBSY)
		shut(fd)
		wants(t, "and after", exec.Command(v.path("new"), "0").Run(), 0)
		// Another thread of this process may have the descriptor until its own exec; what counts is that
		// an editor's way works.
		must(t, os.WriteFile(v.path("script.tmp"), []byte("#!/bin/sh\necho new\n"), 0o755), os.Rename(v.path("script.tmp"), v.path("script")))
		out, err = exec.Command(v.path("script")).CombinedOutput()
		if err != nil || string(out) != "new\n" {
			t.Errorf("%q, %v", out, err)
		}
	})
}
