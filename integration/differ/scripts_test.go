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
	"a grafted directory is the same when it was copied up": `
		variant graft
		fuse
		layer
			mkdir a 0755
			mkdir a/a 0000
			mkdir a/a/b 0644
		run
			open 0 a/a/b r
			setx a/a user.y v31
			rename a/a/b a/a`,
	"a grafted file has set-id bits and what the access list leaves": `
		variant graft
		fuse
		layer
			mkdir a 0755
		run
			dacl . u=6,g=6,g1=6,m=4,o=0
			create e 02644
			stat e`,
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
	"an opaque directory on the way of a redirect ends the search": `
		layer
			mkdir e 0755
		layer
			rename e d
			mkdir d/b 0755
			mkdir d/b/b 0755
		layer
			rmtree d
			mkdir d 0755
			mkdir d/b 0755
		run
			create a 0644
			rename a d/b exchange
			ls a`,
	"a redirected directory on the way of a redirect leads on": `
		layer
			mkdir e 0755
			mkdir e/c 0755
			mkdir e/c/b 0755
			put e/c/b/d 100 1
		layer
			rename e/c b
		layer
			rename b/b e
		run
			ls e
			read e/d`,
	"a redirect goes by the names in the lower layers together": `
		layer
			mkdir e 0755
			mkdir e/d 0755
			mkdir e/d/e 0755
			put e/d/e/f 100 1
			mkdir e/d/a 0755
		layer
			rename e/d e/a
		run
			rename e/a/e e/a/a/e
			rename e/a/a b
			remount
			read b/e/f
			swap
			read b/e/f`,
	"a metadata-only file goes by the names in the lower layers together": `
		variant metacopy
		layer
			mkdir d 0755
			put d/f 100 1
		layer
			rename d a
		run
			rename a b
			chmod b/f 0600
			rename b/f c
			link c b/g
			remount
			read c
			swap
			read b/g`,
	"what cannot have an origin has one number": `
		variant userxattr
		layer
			symlink z c
		run
			ls .
			chown c 1000 2
			ls .`,
	"hard links of an upper of the kernel on btrfs": `
		on btrfs
		layer
			put a 100 1
			link a b
		run
			write a 0 5 2
			swap
			read b
			unlink b
			stat a
			swap
			stat a`,
	"a link in a directory without the impure mark is the same inode": `
		variant disk
		layer
			put b 43 1
			link b c
		run
			write c 0 5 2
			swap
			mkdir d 0755
			link b d/a
			ls d
			swap
			ls d
			stat d/a`,
	"all names are there in a kernel without an index": `
		variant bare
		layer
			put a 100 1
			link a b
			mkdir d 0755
			link a d/c
			mknod p fifo
			link p q
		run
			write b 0 5 2
			mkdir e 0755
			rename q e/q`,
	"a directory moved under userxattr is one in the kernel too": `
		variant moves
		layer
			mkdir a 0755
			put a/f 5000 1
			mkdir a/b 0755
			put a/b/g 100 1
			link a/f a/b/h
		layer
			put a/i 100 2
		run
			rename a c
			unlink c/b/g
			mkdir a 0755
			rename c/b a/x
			write a/x/h 0 10 3
			remount
			rename a/x c/x`,
	"the number of a file linked after the kernel moved it": `
		variant metacopy
		on tmpfs
		layer
			symlink /nowhere e
			rename e c
			mkdir a 0000
		layer
			mkdir a/c 0000
		layer
			link c a/e
		run
			put e 114 213
			rmtree a/e
			mkdir a/e 0600
			rename e c exchange
			rename e a/c exchange
			swap
			rename a/c a/e/c noreplace
			swap
			link a/e/c e/e`,
	"the number of a linked file after a visit in the kernel": `
		variant moves
		layer
			put d 5 1
			link d c
		run
			unlink d
			mkdir d 0755
			rename c d/d`,
	"a rename that fails copies nothing up": `
		layer
			mkdir b 0755
			put b/b 61 321
			mkdir e 0600
		run
			rename e b
			open 0 e r
			mkdir d 0755
			put d/d 157 343
			rename d e
			fsetx 0 security.s w778`,
	"what was removed can be changed": `
		layer
			put c 104 1
		run
			open 2 c r
			unlink c
			fsetx 2 trusted.t w
			ls .`,
	"a whiteout in the lowest layer is not listed": `
		layer
			mkdir c 01755
			mknod c/d white
		run
			rmtree c`,
	"all names show what was written through one": `
		variant passthrough
		layer
			put a 7699 1
			link a b
		run
			stat b
			open 1 a r
			put a 0 2
			stat b
			chmod b 0600
			stat a
			link a c
			unlink b
			stat c
			fread 1 0 100`,
	"a range is copied from one filesystem to another": `
		variant mixed
		layer
			mkdir d 0755
		layer
			put e 6661 743
		run
			create d/d 0644
			copy e d/d 832 3128 417
			read d/d`,
	"overlapping ranges of a file that was handed over": `
		variant passthrough
		layer
			put a 13643 1
		run
			copy a a 4400 3263 8131`,
	"an unfinished file with two names is completed once": `
		variant range
		layer
			put b 20000 1
		run
			write b 0 10 2
			link b c
			remount
			read c`,
	"zeroing what tmpfs cannot zero": `
		variant range
		on tmpfs
		layer
			put c 36131 943
			put d 36131 944
		run
			zero c 16335 3485
			zero d 16335 60000
			read d`,
	"a rename onto a directory that is not empty": `
		variant disk
		layer
			mkdir d 04755
			mkdir a 0755
			rename d a/c noreplace
			mkdir d 0600
		run
			mkdir a/b 0600
			rename a/c a/b/d
			rename a/b a/a
			rename d a/a
			rename d a/a whiteout`,
	"a directory moved to where a rename left a whiteout": `
		variant disk
		on xfs
		layer
			mkdir d 02644
			mkdir b 04755
		run
			put d/a 33 212
			mkdir b/c 04755
			utimens b 1000
			rename d/a b/c/c whiteout
			rename b d/a`,
}

func TestScripts(t *testing.T) {
	for _, list := range []map[string]string{scripts, rareScripts} {
		for name, text := range list {
			t.Run(name, func(t *testing.T) { runScript(t, text) })
			t.Run(name+", mounted", func(t *testing.T) { runScript(t, "fuse\n"+text) })
		}
	}
}

func runScript(t *testing.T, text string) {
	t.Helper()
	harness.NeedRoot(t)
	c, err := ParseCase(text)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Fuse && c.hasUsers() {
		t.Skip("the union alone has no users")
	}
	f, err := Run(harness.Dir(t), c)
	if err != nil {
		t.Fatal(err)
	}
	if f != nil {
		t.Errorf("%s\n\nresults:\n%s\n\nstored:\n%s", f.What, strings.Join(f.Log, "\n"), f.Disk)
	}
}
