package note

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/plyfs/plyfs/integration/harness"
)

// debian is a Debian system as a layer, as soon as a test has asked for it.
var debian *plainLayer

// debianRoot is the store that has that layer, and that all tests on Debian use.
var debianRoot string

// plainLayer is the file of a layer that nobody compresses.
type plainLayer struct {
	path string
	sum  v1.Hash
	size int64
}

func (l *plainLayer) Digest() (v1.Hash, error)             { return l.sum, nil }
func (l *plainLayer) DiffID() (v1.Hash, error)             { return l.sum, nil }
func (l *plainLayer) Compressed() (io.ReadCloser, error)   { return os.Open(l.path) }
func (l *plainLayer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.path) }
func (l *plainLayer) Size() (int64, error)                 { return l.size, nil }
func (l *plainLayer) MediaType() (types.MediaType, error)  { return types.OCIUncompressedLayer, nil }

// onDebian is a shop whose application is on a Debian system, the image debian:12. What a test leaves in the store goes with it.
func onDebian(t *testing.T) *shop {
	t.Helper()
	base := harness.Debian(t)
	if debian == nil {
		dir, err := os.MkdirTemp("", "debian-")
		if err != nil {
			t.Fatal(err)
		}
		l := &plainLayer{path: dir + "/layer.tar"}
		if out, err := exec.Command("tar", "-C", base, "--exclude=./dev/*", "-cf", l.path, ".").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		f, err := os.Open(l.path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if l.sum, l.size, err = v1.SHA256(f); err != nil {
			t.Fatal(err)
		}
		debian, debianRoot = l, dir+"/store"
		c := &harness.CLI{T: t, Root: debianRoot}
		c.Do("image", "load", "--name", "debian:12", l.path)
	}
	s := &shop{harness.CLI{T: t, Root: debianRoot}, t, debianRoot}
	t.Cleanup(func() {
		for _, list := range [][]string{{"ps", "-a", "-q"}, {"volume", "ls", "-q"}} {
			for _, name := range strings.Fields(s.Do(list...)) {
				if list[0] == "ps" {
					s.Do("rm", "-f", name)
				} else {
					s.Do("volume", "rm", name)
				}
			}
		}
		for _, name := range []string{"app:v1", "app:v2"} {
			_ = s.Command("image", "rm", name).Run() // not every test leaves it
		}
	})
	return s
}

// The package manager of a whole Debian system as the application.
func TestDebianImageReal(t *testing.T) {
	c := onDebian(t)
	same := c.sameLayers()
	if out := c.Do("run", "--rm", "debian:12", "sh", "-c", "dpkg --audit; dpkg -l | grep -c ^ii; cat /etc/debian_version"); !strings.Contains(out, "\n12.") {
		t.Errorf("%s", out)
	}
	// Two containers, each with packages of its own: one removes what the other keeps, and makes one to install.
	c.Do("run", "--name", "one", "debian:12", "sh", "-ec", `dpkg --purge --force-all tzdata >/dev/null 2>&1
		mkdir -p /p/DEBIAN /p/opt/hello; echo hello > /p/opt/hello/text
		printf 'Package: hello-plyfs\nVersion: 1\nArchitecture: all\nMaintainer: nobody <a@b.c>\nDescription: x\n' > /p/DEBIAN/control
		dpkg-deb -b /p /root/hello.deb >/dev/null; dpkg -i /root/hello.deb >/dev/null; cat /opt/hello/text; dpkg --audit`)
	c.Do("run", "--name", "two", "debian:12", "sh", "-ec", "dpkg -s tzdata >/dev/null; ! dpkg -s hello-plyfs 2>/dev/null; useradd -m ann; su ann -c 'touch ~/mine'")
	same()
	// The packages as a layer; the system's log in a volume carried to the next version; apt's archive hidden.
	c.Do("commit", "one", "debian:hello")
	c.Do("run", "--rm", "-v", "log:/var/log", "debian:12", "sh", "-ec", "echo first >> /var/log/dpkg.log")
	out := c.Do("run", "--rm", "-v", "log:/var/log", "--tmpfs", "/etc/apt", "debian:hello", "sh", "-ec",
		"tail -n 1 /var/log/dpkg.log; cat /opt/hello/text; ls -A /etc/apt; ! dpkg -s tzdata 2>/dev/null; dpkg -r hello-plyfs >/dev/null; test ! -e /opt/hello && echo removed")
	if out != "first\nhello\nremoved\n" {
		t.Errorf("%q", out)
	}
	c.Do("rm", "one", "two")
	c.Do("image", "rm", "debian:hello")
	c.Do("volume", "rm", "log")
}
