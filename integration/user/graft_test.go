package user

import (
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/integration/harness"
)

// The rules for somebody without privileges. $plyfs mounts with what follows it.
const userRules = `
cd "$1"
$plyfs --bind src:/data --bind src/file:/etc/app.conf:ro --bind src/dir:/srv/new/dir --tmpfs /run:mode=700 --volume made:/v 2>/dev/null && exit 1
rm log # it says why
$plyfs --bind src:/data --bind src/file:/etc/app.conf:ro --bind src/dir:/srv/new/dir --tmpfs /run:mode=700 --volume ./made:/v
errno() { out=$("$@" 2>&1) && echo "$* works" || case $out in *"$want"*) ;; *) echo "$*: $out, want $want" ;; esac; }
cd mnt
[ "$(echo $(ls data)) $(cat etc/app.conf) $(ls etc) $(ls srv/new)" = "dir file host app.conf
hosts dir" ] || ls -R
echo view > data/from-view; [ "$(cat ../src/from-view)" = view ]
echo host > ../src/from-host; [ "$(cat data/from-host)" = host ]
echo more >> ../src/from-view; echo again >> data/from-view
[ "$(echo $(cat data/from-view))" = "view more again" ]
mv data/from-view data/dir/moved; [ -e ../src/dir/moved ] && [ -e srv/new/dir/moved ]
ln data/from-host data/hard; ln -s x data/soft; chmod 600 data/hard; rm data/soft
echo x > v/kept; [ "$(cat ../made/kept)" = x ]
echo t > run/t; [ "$(stat -c %a run)" = 700 ]
want="Read-only file system"; errno sh -c 'echo > etc/app.conf'
want="busy"; errno rmdir data; errno mv etc/hosts etc/app.conf; want="not empty"; errno rmdir srv/new
! ln data/hard etc/hard 2>/dev/null
mv data/hard etc/hard; [ "$(cat etc/hard)" = host ] && [ ! -e ../src/hard ]
flock -n data/file -c 'cd ..; ! flock -n src/file true; ! flock -n mnt/data/file true'
chmod 444 data/file; (umask 077; mkdir data/private); [ "$(stat -c %a data/private)" = 700 ]
cd ..
[ "$(echo $(ls upper))" = etc ] || ls -R upper
`

const graftTree = `
	f data/old image
	f data/sub/deep image
	f etc/app.conf from the image
	f etc/hosts hosts
	f plain a file`

func userGrafts(t *testing.T) *harness.Layers {
	l := harness.UserLayers(t, graftTree)
	harness.Make(t, l.Root, "f src/file host\nd src/dir")
	harness.GiveToUser(t, l.Root)
	return l
}

func runAsUser(t *testing.T, l *harness.Layers, program string, args ...string) {
	t.Helper()
	lower := harness.Dump(t, l.Lowers[0], true)
	mount := `plyfs="` + harness.Binary() + ` mount --lower lower1 --upper upper --work work --log log mnt"; set -e` + "\n"
	end := harness.Binary() + " umount mnt\n[ \"$(ls mnt)\" = '' ]\n! [ -s log ] || cat log\n"
	cmd := harness.AsUser(l.Root, program, append(args, "-c", mount+userRules+end, "sh", l.Root)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+l.Root)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
	if diff := cmp.Diff(lower, harness.Dump(t, l.Lowers[0], true)); diff != "" {
		t.Errorf("the layer changed:\n%s", diff)
	}
}

func TestUserGraftsThroughFusermount(t *testing.T) {
	l := userGrafts(t)
	runAsUser(t, l, "sh")
}

func TestUserGraftsInNamespace(t *testing.T) {
	l := userGrafts(t)
	runAsUser(t, l, "unshare", "-Ur", "-m", "sh")
}

// A file whose mode lets nobody open it can be locked by who has it open: the others of the mount are kept out.
func TestUserLocksOfFilesThatCannotBeOpened(t *testing.T) {
	l := userGrafts(t)
	if out, err := asUser(t, l, "mount", "--lower", "lower1", "--log", "log", "--bind", "src:/data", "mnt"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { _, _ = asUser(t, l, "umount", "mnt") })
	out := script(t, harness.AsUser(l.Root, "sh"), `
cd mnt/data
umask 577
exec 3>secret
timeout 60 flock 3 || echo "lock: $?"
flock -n 3 || echo "once more: $?"
(exec 4>>secret; ! flock -n 4 || echo "two have it")
exec 3>&-
(exec 4>>secret; timeout 60 flock 4 || echo "the next one: $?")
rm -f secret
cd ../..
grep -c 'exclude nobody outside' log
`)
	if out != "1\n" {
		t.Error(out)
	}
}

// The mount of a source that went away is taken away lazily by who is not root, and the graft shows the next one.
func TestUserSourceComesBack(t *testing.T) {
	for _, tool := range []string{"sshfs", "/usr/lib/openssh/sftp-server"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	l := userGrafts(t)
	harness.Make(t, l.Root, "d far")
	if err := os.WriteFile(l.Root+"/ssh", []byte("#!/bin/sh\nexec /usr/lib/openssh/sftp-server\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	harness.GiveToUser(t, l.Root)
	lazily := func() { _ = harness.AsUser(l.Root, "fusermount3", "-uzq", "far").Run() }
	t.Cleanup(lazily)
	mount := `sshfs -f -o ssh_command=$PWD/ssh,cache=no localhost:$PWD/src far >/dev/null 2>&1 & echo $! > pid
until mountpoint -q far; do kill -0 $!; done
`
	script(t, harness.AsUser(l.Root, "sh"), mount)
	t.Cleanup(func() { _, _ = asUser(t, l, "umount", "mnt") })
	if out, err := asUser(t, l, "mount", "--lower", "lower1", "--log", "log", "--bind", "far:/data", "mnt"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out := script(t, harness.AsUser(l.Root, "sh"), `
cat mnt/data/file
kill -9 $(cat pid)
while cat far/file >/dev/null 2>&1; do :; done
! cat mnt/data/file 2>/dev/null
! fusermount3 -uq far
fusermount3 -uz far
`+mount+`
cat mnt/data/file
grep -c 'gone.*fusermount3 -uz' log
`)
	if out != "hosthost1\n" {
		t.Error(out)
	}
}
