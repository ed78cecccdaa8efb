package graft

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/integration/harness"
)

// aboutMount is a view with a graft of each kind: over something, beside it, beneath nothing. The
// source has names that mean something in a layer, and nothing here.
func aboutMount(t *testing.T) (l *harness.Layers, m *harness.Mount, src string) {
	t.Helper()
	harness.NeedRoot(t)
	l = harness.NewLayers(t, graftImage+"\nf gone x", "o data\nf data/below x")
	src = source(t, l, "src", "f old host\nf .wh.sub no whiteout\nc dev 0 0")
	m = l.Plyfs(t)
	write(t, m.Path("data/sub/deep"), "changed")
	write(t, m.Path("etc/hosts"), "changed")
	if err := os.Remove(m.Path("gone")); err != nil {
		t.Error(err)
	}
	m.Close(t)
	m = l.Plyfs(t, "--bind", src+":/data", "--bind", src+"/old:/link/../etc/one:ro", "--tmpfs", "/srv/a/tmp", "--bind", src+":/srv/b")
	write(t, m.Path("srv/a/tmp/t"), "t")
	write(t, m.Path("srv/b/made"), "here")
	return l, m, src
}

func plyfs(t *testing.T, args ...string) string {
	t.Helper()
	out, err := harness.Run(args...)
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return out
}

func TestAboutExplainsGrafts(t *testing.T) {
	l, m, src := aboutMount(t)
	write(t, m.Path("srv/a/real"), "x")
	for name, want := range map[string]string{
		"data":        "/data (directory)|bind provides " + src + "|upper hidden directory|lower 1 hidden directory|It comes from the bind of " + src + ", grafted at /data: what the layers have there is hidden.",
		"data/old":    "/data/old (file)|bind provides " + src + "/old|lower 1 hidden " + l.Lowers[0] + "/data/old|hidden.",
		"data/dev":    "/data/dev (device)|It comes from the bind of " + src + ", grafted at /data.",
		"data/sub":    "/data/sub (no such name)|bind absent|lower 1 hidden directory|The bind that is grafted there has no such name, and what the layers have there is hidden.",
		"etc/one":     "/etc/one (file)|bind provides|It comes from the bind of " + src + "/old, read-only, grafted at ",
		"etc":         "/etc (directory)|merged from",
		"srv":         "/srv (directory)|upper provides|Something is grafted beneath it.",
		"srv/a":       "/srv/a (directory)|upper provides|Something is grafted beneath it.",
		"srv/a/tmp/t": "/srv/a/tmp/t (file)|tmpfs provides tmpfs/t|It comes from a tmpfs, gone with the mount, grafted at /srv/a/tmp.",
		"srv/b/made":  "/srv/b/made (file)|bind provides " + src + "/made",
		"srv/none":    "/srv/none (no such name)|No layer has it.",
	} {
		out := strings.Join(strings.Fields(plyfs(t, "explain", m.Path(name))), " ")
		for _, w := range strings.Split(want, "|") {
			if !strings.Contains(out, w) {
				t.Errorf("explain %s: no %q in\n%s", name, w, out)
			}
		}
	}
	if nodes := m.Stat(t).Union.Core.Nodes; nodes > 20 {
		t.Errorf("%d nodes of the overlay are kept", nodes)
	}
}

func TestAboutTreeAndDiffOfGrafts(t *testing.T) {
	l, m, _ := aboutMount(t)
	tree := plyfs(t, "tree", m.Dir)
	want := m.Dir + `  [upper, lower 1, lower 2]
├── absolute  [lower 1]
├── data/  [bind]
│   ├── .wh.sub  [bind]
│   ├── dev  [bind]
│   ├── made  [bind]
│   └── old  [bind]
├── etc/  [upper, lower 1]
│   ├── app.conf  [lower 1]
│   ├── hosts  [upper]
│   └── one  [bind]
├── gone  [deleted by upper]
├── link  [lower 1]
├── outside  [lower 1]
├── plain  [lower 1]
└── srv/  [graft]
    ├── a/  [graft]
    │   └── tmp/  [tmpfs]
    │       └── t  [tmpfs]
    └── b/  [bind]
        ├── .wh.sub  [bind]
        ├── dev  [bind]
        ├── made  [bind]
        └── old  [bind]
`
	if diff := cmp.Diff(want, tree); diff != "" {
		t.Errorf("tree, wanted (-), printed (+):\n%s", diff)
	}
	if diff := cmp.Diff("C /data\nC /etc\nC /etc/hosts\nD /gone\n", plyfs(t, "diff", m.Dir)); diff != "" {
		t.Errorf("diff, wanted (-), printed (+):\n%s", diff)
	}
	if got := names(t, l.Upper); got != "data etc gone" {
		t.Errorf("the upper has %q", got)
	}
}
