package note

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

func TestVolumeCarriedToTheNextVersion(t *testing.T) {
	s := newShop(t)
	s.load("app:v2", "welcome to version 2\n")
	s.Do("run", "--name", "app", "-v", "todo:/data", "app:v1", "add", "milk")
	s.Do("rm", "app")
	s.Do("image", "rm", "app:v1")
	// The new version's own list stays hidden: the volume has been filled already.
	s.Want("welcome\nmilk\n", "run", "--name", "app", "-v", "todo:/data", "app:v2")
	s.Want("welcome to version 2\n", "run", "--rm", "-v", "new:/data", "app:v2")
}

func TestExplicitVolumeOverVOLUME(t *testing.T) {
	s := newShop(t)
	host := harness.Dir(t)
	s.Do("create", "--name", "one", "-v", "mine:/data", "app:v1")
	s.Do("create", "--name", "two", "-v", host+":/data", "app:v1")
	s.Do("create", "--name", "three", "--tmpfs", "/data", "app:v1")
	s.Want("mine\n", "volume", "ls", "-q")
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
	umount()
	s.write(host+"/app.conf", "the host may\n")
}

func TestDirectoryShadowing(t *testing.T) {
	s := newShop(t)
	host := harness.Dir(t)
	s.write(host+"/host.conf", "")
	s.Want("host.conf\n", "run", "--rm", "-v", host+":/etc", "app:v1", "ls", "/etc")
	s.Want("from the image\n", "run", "--rm", "app:v1", "cat", "/etc/app.conf")

	// The same writable layer, with the shadow and without.
	s.Do("create", "--name", "one", "app:v1", "cat", "/etc/app.conf")
	view, umount := s.mount("--container", "one")
	s.write(view+"/etc/app.conf", "changed\n")
	umount()
	view, umount = s.mount("--container", "one", "--bind", host+":/etc")
	s.gone(view + "/etc/app.conf")
	s.write(view+"/etc/new.conf", "under the shadow\n")
	umount()
	s.Want("changed\n", "start", "-a", "one")
	s.gone(s.root + "/containers/one/upper/etc/new.conf")
	s.holds(host+"/new.conf", "under the shadow\n")
}

// The exercise: the application is to start with an empty list, though the image brings one.
func TestHideTheImagesDataBehindAnEmptyPlace(t *testing.T) {
	s := newShop(t)
	before := harness.Dump(t, s.root+"/layers", true)
	s.Want("list\n", "run", "--rm", "app:v1", "ls", "/data") // a volume that is filled hides nothing
	for _, empty := range [][]string{
		{"--tmpfs", "/data"},
		{"-v", harness.Dir(t) + ":/data"},
		{"-v", "empty:/data:nocopy"},
		{"--mount", "type=volume,source=other,target=/data,volume-nocopy"},
	} {
		s.Want("", append(append([]string{"run", "--rm"}, empty...), "app:v1", "ls", "/data")...)
		s.Do(append(append([]string{"run", "--rm"}, empty...), "app:v1", "add", "mine")...)
	}
	s.Want("mine\n", "run", "--rm", "-v", "empty:/data", "app:v1")
	s.Want("welcome\n", "run", "--rm", "app:v1")
	if diff := cmp.Diff(before, harness.Dump(t, s.root+"/layers", true)); diff != "" {
		t.Errorf("what was hidden changed:\n%s", diff)
	}
}

func TestAllSourcesInOneView(t *testing.T) {
	s := newShop(t)
	before := harness.Dump(t, s.root+"/layers", true)
	host := harness.Dir(t)
	s.write(host+"/app.conf", "from the host\n")
	s.Do("create", "--name", "one", "-v", host+":/conf", "-v", "todo:/data", "--tmpfs", "/cache", "app:v1", "cat", "/conf/new")
	view, umount := s.mount("--container", "one")
	s.holds(view+"/etc/app.conf", "from the image\n") // image layers
	s.holds(view+"/conf/app.conf", "from the host\n") // bind
	s.holds(view+"/data/list", "welcome\n")           // volume, filled from the image
	for _, dir := range []string{"etc", "conf", "data", "cache"} {
		s.write(view+"/"+dir+"/new", dir+"\n")
	}
	// A change across the sources is a copy, as between any two filesystems.
	if err := os.Rename(view+"/data/new", view+"/conf/moved"); !errors.Is(err, unix.EXDEV) {
		t.Errorf("rename from volume to bind: %v", err)
	}
	umount()

	// Each write is where it belongs, and nowhere else.
	upper := s.root + "/containers/one/upper"
	s.holds(upper+"/etc/new", "etc\n")
	s.holds(host+"/new", "conf\n")
	s.holds(s.root+"/volumes/todo/data/new", "data\n")
	for _, name := range []string{"/conf", "/data", "/cache"} {
		s.gone(upper + name)
	}
	s.Want("conf\n", "start", "-a", "one")
	if diff := cmp.Diff(before, harness.Dump(t, s.root+"/layers", true)); diff != "" {
		t.Errorf("the image's layers changed:\n%s", diff)
	}
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
	s.Want("from the image\n", "run", "--rm", "-v", far+":/etc/app:ro", "app:v1", "cat", "/etc/app.conf")
	// Beside all the other sources.
	local := harness.Dir(t)
	s.write(local+"/local", "local bind\n")
	s.Do("create", "--name", "all", "-v", far+":/etc/app:ro", "-v", local+":/local", "-v", "todo:/data", "app:v1", "cat", "/note")
	view, umount := s.mount("--container", "all")
	s.write(view+"/note", "writable layer\n")
	s.holds(view+"/etc/app/app.conf", "changed on the server\n")
	s.holds(view+"/local/local", "local bind\n")
	s.holds(view+"/data/list", "welcome\n")
	s.holds(view+"/etc/app.conf", "from the image\n")
	if err := os.WriteFile(view+"/etc/app/app.conf", nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing to the distributed bind: %v", err)
	}
	umount()
	s.Want("writable layer\n", "start", "-a", "all")
}

func TestImageOnlyMounted(t *testing.T) {
	s := newShop(t)
	s.Fails("no such volume", "mount", "--image", "app:v1", "--volume", "todo:/data", harness.Dir(t))
	s.Fails("no image", "mount", "--image", "nosuch", harness.Dir(t))
	s.Do("volume", "create", "todo")
	view, umount := s.mount("--image", "app:v1", "--volume", "todo:/data")
	if err := os.WriteFile(view+"/note", nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing to an image: %v", err)
	}
	s.holds(view+"/data/list", "welcome\n") // filled, as for a container
	s.write(view+"/data/list", "mine\n")
	// What is mounted stays, whatever becomes of its name.
	s.Do("image", "rm", "app:v1")
	s.holds(view+"/etc/app.conf", "from the image\n")
	s.Fails("is mounted", "volume", "rm", "todo")
	umount()
	s.Do("image", "prune")
	if left, _ := os.ReadDir(s.root + "/layers"); len(left) != 0 {
		t.Errorf("layers are left: %v", left)
	}
	s.Do("volume", "rm", "todo")
}

func TestContainerOnlyMounted(t *testing.T) {
	s := newShop(t)
	s.Do("create", "--name", "one", "app:v1", "cat", "/note")
	view, umount := s.mount("--container", "one")
	if out := s.Do("ps"); !strings.Contains(out, "mounted") {
		t.Errorf("ps: %s", out)
	}
	s.write(view+"/note", "from outside\n")
	for _, args := range [][]string{{"start", "one"}, {"stop", "one"}, {"rm", "one"}, {"rm", "-f", "one"}, {"mount", "--container", "one", harness.Dir(t)}} {
		s.Fails("plyfs umount "+view, args...)
	}
	umount()
	if out := s.Do("ps", "-a"); !strings.Contains(out, "created") {
		t.Errorf("ps -a: %s", out)
	}
	s.Want("from outside\n", "start", "-a", "one")
	s.Fails("name no others", "mount", "--container", "one", "--lower", "/etc", harness.Dir(t))
}
