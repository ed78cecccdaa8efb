package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// podmanStory builds an image of several steps, runs it, changes a container of it, commits
// that, and runs the result.
const podmanStory = `
set -ex
cd "$DIR"
podman build --isolation=chroot --ulimit nofile=1024:1024 -t localhost/one context
run="--cgroups=disabled --network=none --ulimit nproc=1000:1000 --ulimit nofile=1024:1024"
podman run --rm $run localhost/one
podman run --name box $run localhost/one sh -ec '
	echo three > /three; rm /two-link; touch /moved/x; chown 5:6 /three
	test ! -e /one; test ! -e /usr/share/doc; test -u /bin/true
	echo "$(stat -c %i:%h /two)"
	dd if=/dev/zero bs=1 count=1 seek=500000 conv=notrunc of="$(ls -S /usr/lib/x86_64-linux-gnu/libc.so* | head -n 1)" status=none'
podman diff box
podman commit -q box localhost/two
podman run --rm $run localhost/two sh -ec 'cat /three; stat -c "owner %u:%g" /three; test ! -e /two-link; test -e /moved/x' || exit 1
podman rm box
podman rmi -f localhost/two localhost/one
`

const podmanDockerfile = `FROM scratch
ADD rootfs.tar /
RUN echo one > /one && rm -rf /usr/share/doc && mkdir /data && echo in > /data/in
RUN echo two > /two && mv /data /moved && chmod 4755 /bin/true && rm /one
RUN ln /two /two-link && mkdir /data && test ! -e /data/in && cat /moved/in
COPY Dockerfile /etc/Dockerfile
CMD ["/bin/cat", "/two", "/moved/in"]
`

func TestRealPodmanRoot(t *testing.T) {
	harness.Real(t)
	dir := podmanDir(t)
	out := podman(t, exec.Command("sh", "-c", podmanStory), dir, nil)
	podmanCheck(t, dir, out)
}

// As a plain user Podman runs in a user namespace with subordinate ids, where plyfs is
// root of that namespace.
func TestRealPodmanRootless(t *testing.T) {
	harness.Real(t)
	dir := podmanDir(t)
	user := harness.NewAccount(t)
	sh(t, exec.Command("chown", "-R", user.Name, dir))
	cmd := exec.Command("setpriv", "--reuid", user.Name, "--regid", user.Name, "--init-groups", "--inh-caps=-all",
		"sh", "-c", podmanStory)
	out := podman(t, cmd, dir, []string{"HOME=" + dir, "USER=" + user.Name, "XDG_RUNTIME_DIR=" + dir + "/run", "TMPDIR=" + dir})
	podmanCheck(t, dir, out)
}

func podmanCheck(t *testing.T, dir, out string) {
	t.Helper()
	for _, want := range []string{"\ntwo\nin\n", "A /three", "D /two-link", "A /moved/x", "three\nowner 5:6"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
	calls, _ := os.ReadFile(dir + "/calls")
	if n := strings.Count(string(calls), "lowerdir="); n < 5 {
		t.Errorf("the mount program was called %d times; Podman mounted otherwise", n)
	}
	if b, _ := os.ReadFile(dir + "/log"); len(b) > 0 {
		t.Logf("the daemons had to say:\n%s", b)
	}
}

// podmanDir makes a directory with a storage configuration that mounts by plyfs, and a
// build context from a Debian root filesystem.
func podmanDir(t *testing.T) string {
	t.Helper()
	base := harness.Debian(t)
	dir := harness.Dir(t)
	files := map[string]string{
		"storage.conf": fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = \"%[1]s/graph\"\nrunroot = \"%[1]s/run\"\n"+
			"rootless_storage_path = \"%[1]s/graph\"\n[storage.options.overlay]\nmount_program = \"%[1]s/program\"\n", dir),
		"containers.conf":    "[engine]\nevents_logger = \"file\"\ncgroup_manager = \"cgroupfs\"\n",
		"policy.json":        `{"default": [{"type": "insecureAcceptAnything"}]}`,
		"program":            fmt.Sprintf("#!/bin/sh\necho \"$@\" >> %[1]s/calls\nPLYFS_LOG=%[1]s/log exec %[2]s \"$@\"\n", dir, harness.Binary()),
		"context/Dockerfile": podmanDockerfile,
	}
	if err := os.MkdirAll(dir+"/context", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/run", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sh(t, exec.Command("tar", "-C", base, "--exclude=./dev/*", "--exclude=./var/cache/apt/*", "-cf", dir+"/context/rootfs.tar", "."))
	// Podman's crun does not start where both generations of cgroups are mounted. The tests have a mount
	// namespace of their own.
	_ = unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH)
	if err := os.Chmod(filepath.Dir(harness.Binary()), 0o755); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o755) // a plain user must get there
	}
	_ = os.Chmod(os.TempDir(), 0o755)
	return dir
}

func podman(t *testing.T, cmd *exec.Cmd, dir string, env []string) string {
	t.Helper()
	cmd.Env = append(os.Environ(), "DIR="+dir, "CONTAINERS_STORAGE_CONF="+dir+"/storage.conf", "CONTAINERS_CONF="+dir+"/containers.conf")
	cmd.Env = append(cmd.Env, env...)
	return sh(t, cmd)
}
