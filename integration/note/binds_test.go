package note

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// The stations with the host's data.

func TestBindMountBothWays(t *testing.T) {
	s := newShop(t)
	host := harness.Dir(t)
	s.write(host+"/list", "from the host\n")
	url := s.serve("one", "-v", host+":/data")
	s.lists(url, "from the host\n")
	s.post(url, "from inside")
	s.holds(host+"/list", "from the host\nfrom inside\n")
	s.write(host+"/list", "the host again\n") // while the server runs
	s.lists(url, "the host again\n")
	s.write(host+"/new", "")
	s.Want("list\nnew\n", "exec", "one", "/todo", "ls", "/data")
	// It is the host's, and stays when the container goes.
	s.Do("rm", "-f", "-v", "one")
	s.holds(host+"/list", "the host again\n")
	s.Want("", "volume", "ls", "-q")
}

func TestReadOnlyBind(t *testing.T) {
	s := newShop(t)
	host := harness.Dir(t)
	s.write(host+"/app.conf", "from the host\n")
	s.Do("create", "--name", "one", "-v", host+":/conf:ro", "app:v1", "write", "/conf/app.conf", "mine")
	s.Fails("read-only file system", "start", "-a", "one")
	s.holds(host+"/app.conf", "from the host\n")

	view, umount := s.mount("--container", "one")
	s.holds(view+"/conf/app.conf", "from the host\n")
	for what, err := range map[string]error{
		"write":  os.WriteFile(view+"/conf/app.conf", []byte("mine"), 0o644),
		"create": os.WriteFile(view+"/conf/new", nil, 0o644),
		"remove": os.Remove(view + "/conf/app.conf"),
		"chmod":  os.Chmod(view+"/conf/app.conf", 0o600),
		"mkdir":  os.Mkdir(view+"/conf/dir", 0o755),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s under a read-only bind: %v", what, err)
		}
	}
	s.write(view+"/note", "the rest is writable\n")
	s.write(view+"/data/list", "so is the volume\n")
	s.write(host+"/app.conf", "the host may\n")
	s.holds(view+"/conf/app.conf", "the host may\n")
	umount()
}

func TestDirectoryShadowing(t *testing.T) {
	s := newShop(t)
	host := harness.Dir(t)
	s.write(host+"/host.conf", "")
	s.Want("host.conf\n", "run", "--rm", "-v", host+":/etc/app", "app:v1", "ls", "/etc/app")
	s.Want("from the image\n", "run", "--rm", "app:v1", "cat", "/etc/app/app.conf")

	// The same writable layer, with the shadow and without.
	s.Do("create", "--name", "one", "app:v1", "cat", "/etc/app/app.conf")
	view, umount := s.mount("--container", "one")
	s.write(view+"/etc/app/app.conf", "changed\n")
	umount()
	view, umount = s.mount("--container", "one", "--bind", host+":/etc/app")
	s.gone(view + "/etc/app/app.conf")
	s.write(view+"/etc/app/new.conf", "under the shadow\n")
	umount()
	s.Want("changed\n", "start", "-a", "one")
	s.gone(s.root + "/containers/one/upper/etc/app/new.conf")
	s.holds(host+"/new.conf", "under the shadow\n")
}

func TestSingleFileBesideTheImagesFiles(t *testing.T) {
	s := newShop(t)
	host := harness.Dir(t)
	s.write(host+"/app.conf", "from the host\n")
	s.write(host+"/secret", "not bound\n")
	// Over one of the image's files, and as a new name among them.
	s.Do("create", "--name", "one", "-v", host+"/app.conf:/etc/app/app.conf:ro", "-v", host+"/app.conf:/etc/app/extra.conf", "app:v1", "ls", "/etc/app")
	s.Want("app.conf\nextra.conf\nother\n", "start", "-a", "one")
	view, umount := s.mount("--container", "one")
	s.holds(view+"/etc/app/app.conf", "from the host\n")
	s.holds(view+"/etc/app/other", "sibling\n")
	if err := os.WriteFile(view+"/etc/app/app.conf", nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing to the file bound read-only: %v", err)
	}
	s.write(view+"/etc/app/other", "siblings can be changed\n")
	s.write(view+"/etc/app/extra.conf", "written inside\n")
	umount()
	s.holds(host+"/app.conf", "written inside\n")
	s.holds(s.root+"/containers/one/upper/etc/app/other", "siblings can be changed\n")
	s.gone(s.root + "/containers/one/upper/etc/app/extra.conf")
	s.Want("from the image\n", "run", "--rm", "app:v1", "cat", "/etc/app/app.conf")
}

// The configuration is kept in one place, on another machine, for every container.
func TestDistributedBindAsConfigurationSource(t *testing.T) {
	s := newShop(t)
	server := harness.Dir(t)
	s.write(server+"/app.conf", "from the server\n")
	far := harness.SSHFS(t, server)
	for _, name := range []string{"one", "two"} {
		s.Want("from the server\n", "run", "--name", name, "-v", far+":/etc/app:ro", "app:v1", "cat", "/etc/app/app.conf")
	}
	s.write(server+"/app.conf", "changed on the server\n")
	for _, name := range []string{"one", "two"} {
		s.Want("changed on the server\n", "start", "-a", name)
	}
	s.Do("create", "--name", "three", "-v", far+":/etc/app:ro", "app:v1", "write", "/etc/app/app.conf", "mine")
	s.Fails("read-only file system", "start", "-a", "three")
	// While a container runs, too.
	s.serve("runs", "-v", far+":/etc/app:ro")
	s.write(server+"/app.conf", "once more\n")
	s.Want("once more\n", "exec", "runs", "/todo", "cat", "/etc/app/app.conf")
}

// Writable layer, local bind, distributed bind, volume, image layers: each name comes from where it should, each
// write ends up there and nowhere else.
func TestAllFiveSourcesInOneView(t *testing.T) {
	s := newShop(t)
	same := s.sameLayers()
	local, server := harness.Dir(t), harness.Dir(t)
	s.write(local+"/file", "local bind\n")
	s.write(server+"/file", "distributed bind\n")
	far := harness.SSHFS(t, server)
	s.Do("create", "--name", "one", "-v", local+":/local", "-v", far+":/far", "-v", "todo:/data", "app:v1", "cat", "/etc/app/new")
	view, umount := s.mount("--container", "one")
	s.write(view+"/note", "writable layer\n")
	places := map[string]struct{ file, holds, from string }{
		"etc/app": {"app.conf", "from the image\n", s.root + "/containers/one/upper/etc/app"}, // written: to the writable layer
		"local":   {"file", "local bind\n", local},
		"far":     {"file", "distributed bind\n", server},
		"data":    {"list", "welcome\n", s.root + "/volumes/todo/data"},
		".":       {"note", "writable layer\n", s.root + "/containers/one/upper"},
	}
	for dir, p := range places {
		s.holds(view+"/"+dir+"/"+p.file, p.holds)
		s.write(view+"/"+dir+"/new", "new in "+dir+"\n")
	}
	for path, want := range map[string]string{"local/file": "bind", "far/file": "bind", "data/list": "volume", "etc/app/app.conf": "lower", "note": "upper"} {
		if out := s.Do("explain", view+"/"+path); !strings.Contains(out, want) {
			t.Errorf("explain %s has no %q: %s", path, want, out)
		}
	}
	// A change across the sources is a copy, as between any two filesystems.
	for from := range places {
		for to := range places {
			err := os.Rename(view+"/"+from+"/new", view+"/"+to+"/moved")
			within := from == to || (from == "." || from == "etc/app") && (to == "." || to == "etc/app")
			if within != (err == nil) || !within && !errors.Is(err, unix.EXDEV) {
				t.Errorf("rename from %s to %s: %v", from, to, err)
			}
			if err == nil {
				err = os.Rename(view+"/"+to+"/moved", view+"/"+from+"/new")
			}
			if within && err != nil {
				t.Errorf("and back from %s to %s: %v", to, from, err)
			}
		}
	}
	umount()
	for dir, p := range places {
		s.holds(p.from+"/new", "new in "+dir+"\n")
	}
	for _, name := range []string{"local", "far", "data"} {
		s.gone(s.root + "/containers/one/upper/" + name)
	}
	s.Want("new in etc/app\n", "start", "-a", "one")
	same()
}
