package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/integration/harness"
)

// A Debian root filesystem as the lowest layer, two layers made on it by installing
// packages, and on top of them what people do in such a tree.
func TestRealDebian(t *testing.T) {
	harness.Real(t)
	base := harness.Debian(t)
	dir := harness.Dir(t)
	stack := func(name string, lowers ...string) *harness.Layers {
		l := &harness.Layers{Root: filepath.Join(dir, name), Lowers: lowers}
		l.Upper, l.Work, l.Mnt = l.Root+"/upper", l.Root+"/work", l.Root+"/mnt"
		for _, d := range []string{l.Upper, l.Work, l.Mnt} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return l
	}
	install := "apt-get -q -y --no-install-recommends -o Dpkg::Options::=--force-unsafe-io install "
	before := harness.Dump(t, base+"/etc", true)

	tools := stack("tools", base)
	m := tools.Plyfs(t)
	chroot(t, m.Dir, "apt-get -q update && "+install+"gcc libc6-dev git ca-certificates")
	m.Close(t)
	golang := stack("go", tools.Upper, base)
	m = golang.Plyfs(t)
	chroot(t, m.Dir, install+"golang-go")
	m.Close(t)

	view := stack("view", golang.Upper, tools.Upper, base)
	m = view.Plyfs(t)
	chroot(t, m.Dir, install+"vim-runtime python3") // thousands of files
	out := chroot(t, m.Dir, `
		cd /root
		printf '#include <stdio.h>\nint main(){puts("hello from C");}\n' > a.c
		gcc -O2 -o a a.c && ./a
		git init -q r && cd r && mkdir -p cmd/x
		printf 'module example.com/x\n\ngo 1.19\n' > go.mod
		printf 'package main\nimport "fmt"\nfunc main() { fmt.Println("hello from Go") }\n' > cmd/x/main.go
		git add -A && git -c user.name=a -c user.email=a@b commit -qm x
		cd .. && git clone -q r c && cd c && go build -o /root/x ./cmd/x && /root/x && git status --short && git fsck --strict
		dpkg --verify && dpkg --audit`)
	for _, want := range []string{"hello from C", "hello from Go"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
	want := harness.Dump(t, m.Dir, true)
	m.Close(t)
	if diff := cmp.Diff(before, harness.Dump(t, base+"/etc", true)); diff != "" {
		t.Errorf("the lowest layer changed:\n%s", diff)
	}
	kernel := view.Kernel(t)
	if diff := cmp.Diff(want, harness.Dump(t, kernel.Dir, true)); diff != "" {
		t.Errorf("the tree in plyfs (-), in the kernel (+):\n%.4000s", diff)
	}
}
