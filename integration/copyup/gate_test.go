package copyup

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// gate is a lower directory, a filesystem of its own, whose reads the test holds up.
type gate struct {
	dir string

	mu     sync.Mutex
	cond   *sync.Cond
	from   int64 // reads before this offset always go on
	passes int   // of the others, how many may go on; below zero: all
	held   int   // reads that wait
}

// gateNode is a loopback node whose open files ask the gate.
type gateNode struct {
	fs.LoopbackNode
	g *gate
}

type gateFile struct {
	*fs.LoopbackFile
	g *gate
}

func (n *gateNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, _, errno := n.LoopbackNode.Open(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	// Direct: every read that plyfs makes comes here, and nothing else.
	return &gateFile{h.(*fs.LoopbackFile), n.g}, fuse.FOPEN_DIRECT_IO, 0
}

// Read has the data in hand before it waits.
func (f *gateFile) Read(_ context.Context, buf []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	f.g.wait(off)
	fd, ok := f.PassthroughFd()
	if !ok {
		return nil, syscall.EIO
	}
	n, err := unix.Pread(fd, buf, off)
	if err != nil {
		return nil, fs.ToErrno(err)
	}
	return fuse.ReadResultData(buf[:n]), 0
}

// WrapChild implements fs.NodeWrapChilder: what is below is behind the gate too.
func (n *gateNode) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	if child, ok := ops.(*fs.LoopbackNode); ok {
		return &gateNode{fs.LoopbackNode{RootData: child.RootData}, n.g}
	}
	return ops
}

// newGate makes a tree (see harness.Make) and serves it, with all reads let through.
func newGate(t *testing.T, text string) *gate {
	t.Helper()
	harness.NeedRoot(t)
	dir := harness.Dir(t)
	g := &gate{dir: filepath.Join(dir, "gate"), passes: -1}
	g.cond = sync.NewCond(&g.mu)
	src := filepath.Join(dir, "src")
	must(t, os.Mkdir(src, 0o755))
	must(t, os.Mkdir(g.dir, 0o755))
	harness.Make(t, src, text)
	var st syscall.Stat_t
	must(t, syscall.Stat(src, &st))
	root := &fs.LoopbackRoot{Path: src, Dev: uint64(st.Dev)}
	root.RootNode = &gateNode{fs.LoopbackNode{RootData: root}, g}
	long := time.Hour
	server, err := fs.Mount(g.dir, root.RootNode, &fs.Options{EntryTimeout: &long, AttrTimeout: &long,
		// So deep that the kernel gives it no passthrough of its own: then a view of it can have that.
		MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "gate", MaxStackDepth: 9, Options: []string{"default_permissions"}}})
	must(t, err)
	t.Cleanup(func() {
		g.open(-1)
		_ = unix.Unmount(g.dir, unix.MNT_DETACH)
		server.Wait()
	})
	return g
}

func (g *gate) wait(off int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if off < g.from {
		return
	}
	g.held++
	g.cond.Broadcast()
	for g.passes == 0 {
		g.cond.Wait()
	}
	g.held--
	if g.passes > 0 {
		g.passes--
	}
}

// open lets so many more reads through; below zero: all; 0: none.
func (g *gate) open(passes int) { g.openFrom(0, passes) }

// openFrom is open for reads at from or behind it; those before it always go on.
func (g *gate) openFrom(from int64, passes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.from, g.passes = from, passes
	g.cond.Broadcast()
}

// awaitHeld waits until a read is held up.
func (g *gate) awaitHeld() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.held == 0 || g.passes != 0 {
		g.cond.Wait()
	}
}

// layers is a stack over the gate.
func (g *gate) layers(t *testing.T) *harness.Layers {
	t.Helper()
	l := harness.NewLayers(t)
	l.Lowers = []string{g.dir}
	return l
}
