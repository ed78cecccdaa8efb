package note

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/integration/harness"
)

// The stations again with a whole Debian system as the image, and its package manager as the application.
func TestDebianImageReal(t *testing.T) {
	base := harness.Debian(t)
	root := harness.Dir(t) + "/store"
	c := &harness.CLI{T: t, Root: root}
	if out, err := exec.Command("sh", "-ec", `tar -C "$0" --exclude='./dev/*' -cf - . | PLYFS_ROOT="$1" "$2" image load --name debian:12 -`,
		base, root, harness.Binary()).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	layers := harness.Dump(t, root+"/layers", true)
	if out := c.Do("run", "--rm", "debian:12", "sh", "-c", "dpkg --audit; dpkg -l | grep -c ^ii; cat /etc/debian_version"); !strings.Contains(out, "\n12.") {
		t.Errorf("%s", out)
	}
	// Two containers, each with packages of its own: one removes what the other keeps, and makes one to install.
	c.Do("run", "--name", "one", "debian:12", "sh", "-ec", `dpkg --purge --force-all tzdata >/dev/null 2>&1
		mkdir -p /p/DEBIAN /p/opt/hello; echo hello > /p/opt/hello/text
		printf 'Package: hello-plyfs\nVersion: 1\nArchitecture: all\nMaintainer: nobody <a@b.c>\nDescription: x\n' > /p/DEBIAN/control
		dpkg-deb -b /p /root/hello.deb >/dev/null; dpkg -i /root/hello.deb >/dev/null; cat /opt/hello/text; dpkg --audit`)
	c.Do("run", "--name", "two", "debian:12", "sh", "-ec", "dpkg -s tzdata >/dev/null; ! dpkg -s hello-plyfs 2>/dev/null; useradd -m ann; su ann -c 'touch ~/mine'")
	if diff := cmp.Diff(layers, harness.Dump(t, root+"/layers", true)); diff != "" {
		t.Errorf("the image's layers changed:\n%.2000s", diff)
	}
	// The packages as a layer; the system's log in a volume carried to the next version; apt's archive hidden.
	c.Do("commit", "one", "debian:hello")
	c.Do("run", "--rm", "-v", "log:/var/log", "debian:12", "sh", "-ec", "echo first >> /var/log/dpkg.log")
	out := c.Do("run", "--rm", "-v", "log:/var/log", "--tmpfs", "/etc/apt", "debian:hello", "sh", "-ec",
		"tail -n 1 /var/log/dpkg.log; cat /opt/hello/text; ls -A /etc/apt; ! dpkg -s tzdata 2>/dev/null; dpkg -r hello-plyfs >/dev/null; test ! -e /opt/hello && echo removed")
	if out != "first\nhello\nremoved\n" {
		t.Errorf("%q", out)
	}
	c.Do("rm", "one", "two")
	c.Do("image", "rm", "debian:hello", "debian:12")
	c.Do("volume", "rm", "log")
}
