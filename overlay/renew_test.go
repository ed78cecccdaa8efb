package overlay

import (
	"os"
	"testing"
)

// A name made from a node that was taken out of the view is one of the node that took its place, and when the first is
// forgotten nothing is left of it.
func TestRenewed(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"/lower", "/upper", "/work"} {
		if err := os.Mkdir(dir+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/lower/a", []byte("contents"), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Lowers, cfg.Upper, cfg.Work = []string{dir + "/lower"}, dir+"/upper", dir+"/work"
	fs, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	c := &Caller{}
	find := func(name string) *Node {
		t.Helper()
		var a Attr
		n, err := fs.Lookup(c, fs.Root(), name, &a)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	old := find("a")
	if _, err := fs.Renew(c, old); err != nil {
		t.Fatal(err)
	}
	successor := find("a")
	if successor == old {
		t.Fatal("the name has the node that was taken out")
	}
	var a Attr
	if err := fs.Link(c, old, fs.Root(), "b", &a); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Renew(c, old); err != nil {
		t.Fatal(err)
	}
	if n := find("b"); n != successor {
		t.Errorf("the new name has node %d, the first one %d", n.ID(), successor.ID())
	}
	fs.Forget(old.ID(), 2)
	fs.Forget(successor.ID(), 2)
	if n := len(fs.nodes.renewed) + len(fs.nodes.heirs) + len(fs.nodes.links); n != 0 {
		t.Errorf("%d entries are left of forgotten nodes", n)
	}
}
