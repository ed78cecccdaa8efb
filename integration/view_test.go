package integration

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// sample has one of everything a union is about.
var sample = []string{
	`f a/top top
	 f both from the top
	 w gone
	 o opaque
	 f opaque/new new
	 d merged
	 f merged/upper-half 1`,
	`f a/bottom bottom
	 f both from the bottom
	 f gone you should not see this
	 f opaque/old old
	 f merged/lower-half 2
	 h linked both
	 l link both
	 p fifo
	 x both user.colour blue
	 m a/bottom 4755
	 u a/bottom 1000 1000`,
}

func TestSameViewAsKernel(t *testing.T) {
	l := harness.NewLayers(t, sample...)
	kernel := l.Kernel(t)
	want := harness.Dump(t, kernel.Dir, true)
	kernel.Close(t)
	got := harness.Dump(t, l.Plyfs(t).Dir, true)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kernel (-), plyfs (+):\n%s", diff)
	}
}

func TestLowersStayAsTheyAre(t *testing.T) {
	l := harness.NewLayers(t, sample...)
	before := [][]string{harness.Dump(t, l.Lowers[0], true), harness.Dump(t, l.Lowers[1], true)}
	m := l.Plyfs(t)
	for _, err := range []error{
		os.WriteFile(m.Path("both"), []byte("changed"), 0o644),
		os.Chmod(m.Path("a/bottom"), 0o600),
		os.Remove(m.Path("link")),
		os.RemoveAll(m.Path("merged")),
		os.Mkdir(m.Path("merged"), 0o755),
		os.Rename(m.Path("a"), m.Path("b")),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	m.Close(t)
	after := [][]string{harness.Dump(t, l.Lowers[0], true), harness.Dump(t, l.Lowers[1], true)}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the lower layers changed:\n%s", diff)
	}
	m = l.Plyfs(t)
	want := harness.Dump(t, m.Dir, true)
	m.Close(t)
	if diff := cmp.Diff(want, harness.Dump(t, l.Kernel(t).Dir, true)); diff != "" {
		t.Errorf("the upper in plyfs (-), in the kernel (+):\n%s", diff)
	}
}
