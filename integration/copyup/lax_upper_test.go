package copyup

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// laxNode is of a filesystem that takes owners and modes without an error and keeps none, as vfat does with the
// option quiet.
type laxNode struct{ fs.LoopbackNode }

func (n *laxNode) Create(ctx context.Context, name string, flags, _ uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return n.LoopbackNode.Create(ctx, name, flags, 0o755, out)
}

func (n *laxNode) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	in.Valid &^= fuse.FATTR_MODE | fuse.FATTR_UID | fuse.FATTR_GID
	return n.LoopbackNode.Setattr(ctx, f, in, out)
}

// WrapChild implements fs.NodeWrapChilder.
func (n *laxNode) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	if child, ok := ops.(*fs.LoopbackNode); ok {
		return &laxNode{fs.LoopbackNode{RootData: child.RootData}}
	}
	return ops
}

// TestUpperThatKeepsNoModes: what would grant more than the original there is refused, and what would not is copied up.
func TestUpperThatKeepsNoModes(t *testing.T) {
	harness.NeedRoot(t)
	root := harness.Dir(t)
	src, dir := filepath.Join(root, "src"), filepath.Join(root, "lax")
	must(t, os.Mkdir(src, 0o755))
	must(t, os.Mkdir(dir, 0o755))
	var st syscall.Stat_t
	must(t, syscall.Stat(src, &st))
	data := &fs.LoopbackRoot{Path: src, Dev: uint64(st.Dev)}
	data.RootNode = &laxNode{fs.LoopbackNode{RootData: data}}
	server, err := fs.Mount(dir, data.RootNode, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "lax"}})
	must(t, err)
	t.Cleanup(func() {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		server.Wait()
	})
	l := harness.NewLayersOn(t, dir)
	low := filepath.Join(root, "low")
	must(t, os.Mkdir(low, 0o755))
	harness.Make(t, low, "f open x\nm open 755\nf secret x\nm secret 600\nf owned x\nm owned 755")
	must(t, os.Chown(low+"/owned", 77, 77))
	l.Lowers = []string{low}
	m := l.Plyfs(t)
	for name, want := range map[string]error{"secret": unix.EOPNOTSUPP, "owned": unix.EPERM} {
		if err := os.WriteFile(m.Path(name), []byte("y"), 0o600); errnoOf(err) != want {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(filepath.Join(l.Upper, name)); err == nil {
			t.Errorf("%s is in the upper", name)
		}
		sameBytes(t, m.Path(name), []byte("x"))
	}
	must(t, os.WriteFile(m.Path("open"), []byte("y"), 0o600))
	sameBytes(t, l.Upper+"/open", []byte("y"))
}
