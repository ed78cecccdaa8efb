package graft

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// weakSource is a FUSE filesystem with a directory behind it that lacks what a test says, and that
// can be made to fail, to hang, and to go away. Its server is a process of its own: one that hangs
// must not be the one that waits for it.
type weakSource struct {
	dir, at string // behind it; where it is mounted
	lacks   map[string]unix.Errno
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
}

const weakVariable = "PLYFS_TEST_WEAK" // set: this process is a server

// weak mounts dir so. lacks says what an operation answers, by the names that weakFS uses.
func weak(t *testing.T, dir string, lacks map[string]unix.Errno) *weakSource {
	t.Helper()
	harness.NeedRoot(t)
	w := &weakSource{dir: dir, at: filepath.Join(harness.Dir(t), "weak"), lacks: lacks}
	if err := os.Mkdir(w.at, 0o755); err != nil {
		t.Fatal(err)
	}
	w.mount(t)
	t.Cleanup(w.kill)
	return w
}

func (w *weakSource) mount(t *testing.T) {
	t.Helper()
	spec, err := json.Marshal([]any{w.dir, w.at, w.lacks})
	if err != nil {
		t.Fatal(err)
	}
	w.cmd = exec.Command("/proc/self/exe")
	w.cmd.Env = append(os.Environ(), weakVariable+"="+string(spec))
	w.cmd.Stderr = os.Stderr
	w.in, err = w.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := w.cmd.StdoutPipe()
	if err == nil {
		err = w.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	w.out = bufio.NewReader(out)
	if answer, err := w.out.ReadString('\n'); answer != "ready\n" {
		w.kill()
		t.Fatalf("no weak filesystem: %q, %v", answer, err)
	}
}

// kill ends the server, and takes its mount away: whoever has it still meets ENOTCONN.
func (w *weakSource) kill() {
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
	_ = unix.Unmount(w.at, unix.MNT_DETACH)
}

// set says what happens from now on: all requests answer e, 0 for as usual; or hang.
func (w *weakSource) set(t *testing.T, e unix.Errno, hang bool) {
	t.Helper()
	w.ask(t, fmt.Sprintln(int(e), hang))
}

// hanging returns how many requests hang.
func (w *weakSource) hanging(t *testing.T) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(w.ask(t, "how many\n"), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func (w *weakSource) ask(t *testing.T, what string) string {
	t.Helper()
	_, err := io.WriteString(w.in, what)
	var answer string
	if err == nil {
		answer, err = w.out.ReadString('\n')
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(answer)
}

// weakFS is what the server of a weakSource serves.
type weakFS struct {
	fuse.RawFileSystem

	mu    sync.Mutex // guards the rest
	lacks map[string]unix.Errno
	all   unix.Errno    // what everything answers
	hang  chan struct{} // nil: nothing hangs; closed at the end of the hanging
	stuck int           // requests that hang
}

// serveWeak is the process of a server. It ends when nobody asks any more.
func serveWeak(spec string) error {
	var dir, at string
	w := &weakFS{}
	if err := json.Unmarshal([]byte(spec), &[]any{&dir, &at, &w.lacks}); err != nil {
		return err
	}
	root, err := fs.NewLoopbackRoot(dir)
	if err != nil {
		return err
	}
	w.RawFileSystem = fs.NewNodeFS(root, &fs.Options{}) // nothing is remembered
	_, locks := w.lacks["lock"]
	_, squash := w.lacks["root"]
	locks = locks || squash
	_, noAttrs := w.lacks["xattr"]
	server, err := fuse.NewServer(w, at, &fuse.MountOptions{
		AllowOther: true, DirectMountStrict: true, FsName: "weak", Name: "weak", EnableLocks: locks, EnableAcl: !noAttrs,
		DisableReadDirPlus: true, MaxWrite: 1 << 17, Options: []string{"default_permissions"},
	})
	if err != nil {
		return err
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return err
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var e int
		var hang bool
		w.mu.Lock()
		if _, err := fmt.Sscan(lines.Text(), &e, &hang); err == nil {
			w.all = unix.Errno(e)
			if w.hang != nil {
				close(w.hang)
				w.hang = nil
			}
			if hang {
				w.hang = make(chan struct{})
			}
		}
		stuck := w.stuck
		w.mu.Unlock()
		fmt.Println(stuck)
	}
	return nil
}

// no answers op if it is not to be served.
func (w *weakFS) no(op string) fuse.Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.hang != nil {
		h := w.hang
		w.stuck++
		w.mu.Unlock()
		<-h
		w.mu.Lock()
		w.stuck--
	}
	if w.all != 0 {
		return fuse.Status(w.all)
	}
	return fuse.Status(w.lacks[op])
}

type done = <-chan struct{}

func (w *weakFS) Lookup(c done, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if e := w.no("lookup"); e != 0 {
		return e
	}
	return w.RawFileSystem.Lookup(c, h, name, out)
}

func (w *weakFS) GetAttr(c done, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if e := w.no("getattr"); e != 0 {
		return e
	}
	return w.RawFileSystem.GetAttr(c, in, out)
}

func (w *weakFS) Statx(c done, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	if e := w.no("statx"); e != 0 {
		return e
	}
	return w.RawFileSystem.Statx(c, in, out)
}

func (w *weakFS) SetAttr(c done, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	op := "setattr"
	switch {
	case in.Valid&(fuse.FATTR_UID|fuse.FATTR_GID) != 0:
		op = "chown"
	case in.Valid&fuse.FATTR_MODE != 0:
		op = "chmod"
	case in.Valid&fuse.FATTR_SIZE != 0:
		op = "truncate"
	}
	if e := w.no(op); e != 0 {
		return e
	}
	return w.RawFileSystem.SetAttr(c, in, out)
}

func (w *weakFS) Mknod(c done, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	op := "mknod"
	if in.Mode&unix.S_IFMT == unix.S_IFREG {
		op = "create"
	}
	if e := w.no(op); e != 0 {
		return e
	}
	return w.RawFileSystem.Mknod(c, in, name, out)
}

func (w *weakFS) Mkdir(c done, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if e := w.no("mkdir"); e != 0 {
		return e
	}
	return w.RawFileSystem.Mkdir(c, in, name, out)
}

func (w *weakFS) Symlink(c done, h *fuse.InHeader, to, name string, out *fuse.EntryOut) fuse.Status {
	if e := w.no("symlink"); e != 0 {
		return e
	}
	return w.RawFileSystem.Symlink(c, h, to, name, out)
}

func (w *weakFS) Link(c done, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if e := w.no("link"); e != 0 {
		return e
	}
	return w.RawFileSystem.Link(c, in, name, out)
}

func (w *weakFS) Unlink(c done, h *fuse.InHeader, name string) fuse.Status {
	if e := w.no("unlink"); e != 0 {
		return e
	}
	return w.RawFileSystem.Unlink(c, h, name)
}

func (w *weakFS) Rename(c done, in *fuse.RenameIn, from, to string) fuse.Status {
	op := "rename"
	if in.Flags != 0 {
		op = "rename2"
	}
	if e := w.no(op); e != 0 {
		return e
	}
	return w.RawFileSystem.Rename(c, in, from, to)
}

func (w *weakFS) GetXAttr(c done, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	if e := w.no("xattr"); e != 0 {
		return 0, e
	}
	return w.RawFileSystem.GetXAttr(c, h, attr, dest)
}

func (w *weakFS) ListXAttr(c done, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if e := w.no("xattr"); e != 0 {
		return 0, e
	}
	return w.RawFileSystem.ListXAttr(c, h, dest)
}

func (w *weakFS) SetXAttr(c done, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	if e := w.no("xattr"); e != 0 {
		return e
	}
	return w.RawFileSystem.SetXAttr(c, in, attr, data)
}

func (w *weakFS) Create(c done, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if e := w.no("create"); e != 0 {
		return e
	}
	return w.RawFileSystem.Create(c, in, name, out)
}

func (w *weakFS) Tmpfile(c done, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	if e := w.no("tmpfile"); e != 0 {
		return e
	}
	return w.RawFileSystem.Tmpfile(c, in, out)
}

func (w *weakFS) Open(c done, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if e := w.no("open"); e != 0 {
		return e
	}
	if in.Uid == 0 {
		if e := w.no("root"); e != 0 {
			return e
		}
	}
	e := w.RawFileSystem.Open(c, in, out)
	out.OpenFlags |= fuse.FOPEN_DIRECT_IO // no page cache: each read is asked
	return e
}

func (w *weakFS) Read(c done, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if e := w.no("read"); e != 0 {
		return nil, e
	}
	return w.RawFileSystem.Read(c, in, buf)
}

func (w *weakFS) Write(c done, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if e := w.no("write"); e != 0 {
		return 0, e
	}
	return w.RawFileSystem.Write(c, in, data)
}

func (w *weakFS) Writev(done, *fuse.WriteIn, [][]byte) (uint32, fuse.Status) { return 0, fuse.ENOSYS }

func (w *weakFS) Flush(c done, in *fuse.FlushIn) fuse.Status {
	if e := w.no("flush"); e != 0 {
		return e
	}
	return w.RawFileSystem.Flush(c, in)
}

func (w *weakFS) Fallocate(c done, in *fuse.FallocateIn) fuse.Status {
	if e := w.no("fallocate"); e != 0 {
		return e
	}
	return w.RawFileSystem.Fallocate(c, in)
}

func (w *weakFS) OpenDir(c done, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if e := w.no("opendir"); e != 0 {
		return e
	}
	return w.RawFileSystem.OpenDir(c, in, out)
}

func (w *weakFS) StatFs(c done, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	if e := w.no("statfs"); e != 0 {
		return e
	}
	return w.RawFileSystem.StatFs(c, in, out)
}

func (w *weakFS) GetLk(c done, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	if e := w.no("lock"); e != 0 {
		return e
	}
	return w.RawFileSystem.GetLk(c, in, out)
}

func (w *weakFS) SetLk(c done, in *fuse.LkIn) fuse.Status {
	if e := w.no("lock"); e != 0 {
		return e
	}
	return w.RawFileSystem.SetLk(c, in)
}
