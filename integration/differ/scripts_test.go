package differ

import (
	"os"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/integration/harness"
)

// TestScript runs the case in the file PLYFS_FUZZ_SCRIPT.
func TestScript(t *testing.T) {
	file := os.Getenv("PLYFS_FUZZ_SCRIPT")
	if file == "" {
		t.Skip("no PLYFS_FUZZ_SCRIPT")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	runScript(t, string(b))
}

// scripts are what the fuzzer found, by what was wrong.
var scripts = map[string]string{
	"a lower directory shows its links": `
		layer
			mkdir e 0755
			mkdir e/d 0755
		run
			ls e
			stat e/d`,
	"the root is marked impure when something is copied up into it": `
		layer
			put a 9618 1
			link a d
		run
			write d 0 5 2
			swap
			ls .`,
	"hard links part without an index": `
		variant noindex
		layer
			put a 100 1
			link a b
		run
			write a 0 5 2
			read b
			ls .
			remount
			read b
			ls .`,
	"a changed alias of a copied-up inode gets its name": `
		layer
			put a 100 1
			mkdir d 0755
			link a d/b
		run
			unlink a
			chmod d/b 0600
			stat d/b
			swap
			unlink d/b`,
	"an absolute redirect of the upper begins below the upper": `
		layer
			mkdir b 0755
		layer
			mkdir e 01755
			setx b user.x v310
		run
			rename b e/b
			ls e
			remount
			ls e`,
	"a link of a metadata-only file knows its data": `
		variant metacopy
		layer
			put e 75 1
		run
			link e b
			read b
			trunc b 0`,
	"RENAME_WHITEOUT in a directory of the upper alone": `
		layer
		run
			mkdir a 0755
			mkdir a/a 0755
			create a/b 0755
			rename a/b a/a/d whiteout
			swap
			ls a`,
	"an unfinished file with two names is completed once": `
		variant range
		layer
			put b 20000 1
		run
			write b 0 10 2
			link b c
			remount
			read c`,
}

func TestScripts(t *testing.T) {
	for name, text := range scripts {
		t.Run(name, func(t *testing.T) { runScript(t, text) })
		t.Run(name+", mounted", func(t *testing.T) { runScript(t, "fuse\n"+text) })
	}
}

func runScript(t *testing.T, text string) {
	t.Helper()
	harness.NeedRoot(t)
	c, err := ParseCase(text)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Run(harness.Dir(t), c)
	if err != nil {
		t.Fatal(err)
	}
	if f != nil {
		t.Errorf("%s\n\nresults:\n%s\n\nstored:\n%s", f.What, strings.Join(f.Log, "\n"), f.Disk)
	}
}
