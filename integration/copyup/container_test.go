package copyup

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// TestRemovedContainerIsNotSettled: what a container wrote goes with it, and is not made whole before.
func TestRemovedContainerIsNotSettled(t *testing.T) {
	harness.NeedRoot(t)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip(err)
	}
	dir := harness.Dir(t)
	imagetest.WriteLayout(t, dir+"/in", &imagetest.Image{Name: "app:v1", How: "gzip", Layers: [][]imagetest.Entry{
		append(imagetest.Tree("d bin\nF big 8M"), imagetest.File("bin/busybox", 0o755, busybox)),
	}})
	cli := harness.CLI{T: t, Root: dir + "/store"}
	cli.Do("image", "load", dir+"/in")
	cli.Do("run", "-d", "--name", "one", "app:v1", "/bin/busybox", "sh", "-c",
		"printf x | busybox dd of=/big bs=1 seek=100000 conv=notrunc; busybox sleep 1000")
	defer cli.Command("rm", "-f", "one").Run() //nolint:errcheck // it may be gone
	var upper *os.File
	eventually(t, "the container writes", func() bool {
		paths, _ := filepath.Glob(cli.Root + "/containers/*/upper/big")
		if len(paths) != 1 {
			return false
		}
		upper, err = os.Open(paths[0])
		return err == nil
	})
	defer upper.Close()
	cli.Do("rm", "-f", "one")
	var st unix.Stat_t
	must(t, unix.Fstat(int(upper.Fd()), &st))
	if st.Nlink != 0 || st.Size != 8<<20 || st.Blocks*512 > 1<<20 {
		t.Errorf("%d links, %d of %d bytes in the upper", st.Nlink, st.Blocks*512, st.Size)
	}
}
