package note

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// The stations of the story, in its order; those with the host's data are in binds_test.go.

func TestTwoContainersFromOneImage(t *testing.T) {
	s := newShop(t)
	same := s.sameLayers()
	one, two := s.serve("one"), s.serve("two")
	s.post(one, "milk")
	s.Do("exec", "one", "/todo", "write", "/etc/app/app.conf", "from one")
	s.lists(one, "welcome\nmilk\n")
	s.lists(two, "welcome\n")
	s.Want("from one", "exec", "one", "/todo", "cat", "/etc/app/app.conf")
	s.Want("from the image\n", "exec", "two", "/todo", "cat", "/etc/app/app.conf")
	same()
}

func TestLowerUnchangedAfterAWrite(t *testing.T) {
	s := newShop(t)
	same := s.sameLayers()
	s.Do("create", "--name", "one", "app:v1", "cat", "/etc/app/app.conf")
	view, umount := s.mount("--container", "one")
	conf, other := view+"/etc/app/app.conf", view+"/etc/app/other"
	s.write(conf, "changed\n")
	for what, err := range map[string]error{
		"chmod": os.Chmod(view+"/todo", 0o700), "chown": os.Chown(view+"/etc/app", 7, 8), "rename": os.Rename(other, view+"/etc/moved"),
		"xattr": unix.Setxattr(conf, "user.colour", []byte("blue"), 0), "truncate": os.Truncate(view+"/etc/moved", 3),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	same()
	// What was written is in the container's own layer, and the name tells which is which.
	if out := s.Do("explain", conf); !strings.Contains(out, "upper") || !strings.Contains(out, "hidden") {
		t.Errorf("explain: %s", out)
	}
	if err := os.RemoveAll(view + "/etc/app"); err != nil {
		t.Error(err)
	}
	umount()
	s.holds(s.root+"/containers/one/upper/etc/moved", "sib")
	same()
	s.Want("from the image\n", "run", "--rm", "app:v1", "cat", "/etc/app/app.conf")
}

func TestDataGoneAfterRm(t *testing.T) {
	s := newShop(t)
	s.Do("run", "--name", "one", "app:v1", "write", "/note", "kept while it lives")
	s.Ends(1, "run", "--rm", "app:v1", "cat", "/note")
	s.Do("create", "--name", "two", "app:v1")
	s.holds(s.root+"/containers/one/upper/note", "kept while it lives")
	s.Do("rm", "one", "two")
	s.gone(s.root + "/containers/one")
	s.Do("create", "--name", "one", "app:v1", "ls", "/")
	if out := s.Do("start", "-a", "one"); strings.Contains(out, "note") {
		t.Errorf("a new container has the old one's file: %s", out)
	}
}

func TestAnonymousVolumeFromTheImage(t *testing.T) {
	s := newShop(t)
	s.Do("run", "--name", "one", "app:v1", "add", "bread")
	name := strings.TrimSpace(s.Do("volume", "ls", "-q"))
	if len(name) != 64 || strings.Trim(name, "0123456789abcdef") != "" {
		t.Errorf("the volume is called %q", name)
	}
	// Another container, another volume, with the image's list; the first one's is still there.
	s.Want("welcome\n", "run", "--name", "two", "app:v1")
	s.holds(s.root+"/volumes/"+name+"/data/list", "welcome\nbread\n")
	s.gone(s.root + "/containers/one/upper/data")
	// It outlives its container, unless it is to go with it.
	s.Do("rm", "one")
	s.Want("welcome\nbread\n", "run", "--rm", "-v", name+":/data", "app:v1")
	s.Do("rm", "-v", "two")
	s.Want(name+"\n", "volume", "ls", "-q")
	s.Do("run", "--rm", "app:v1", "add", "gone with --rm")
	s.Do("volume", "prune")
	s.Want("", "volume", "ls", "-q")
}

func TestVolumesFrom(t *testing.T) {
	s := newShop(t)
	host := harness.Dir(t)
	s.write(host+"/text", "from the host\n")
	one := s.serve("one", "-v", host+":/conf")
	two := s.serve("two", "--volumes-from", "one")
	looks := s.serve("looks", "--volumes-from", "one:ro")
	// At once, in both directions, and what is bound comes along; the reader only reads.
	s.post(one, "milk")
	s.lists(two, "welcome\nmilk\n")
	s.post(two, "bread")
	for _, url := range []string{one, two, looks} {
		s.lists(url, "welcome\nmilk\nbread\n")
	}
	if got := s.post(looks, "never"); !strings.Contains(got, "read-only file system") {
		t.Errorf("the reader's write: %q", got)
	}
	s.Want("from the host\n", "exec", "looks", "/todo", "cat", "/conf/text")
	s.Ends(1, "exec", "looks", "/todo", "write", "/conf/text", "never")
	// The volume stays while somebody uses it.
	s.Do("rm", "-f", "-v", "one")
	s.lists(two, "welcome\nmilk\nbread\n")
	s.Fails("in use by looks, two", "volume", "rm", strings.TrimSpace(s.Do("volume", "ls", "-q")))
}

func TestNamedVolumeCarriedFromV1ToV2(t *testing.T) {
	s := newShop(t)
	s.load("app:v2", "welcome to version 2\n")
	s.Do("run", "--name", "app", "-v", "todo:/data", "app:v1", "add", "milk")
	s.Do("rm", "-v", "app") // the anonymous ones would go
	s.Do("image", "rm", "app:v1")
	// The new version's own list stays hidden: the volume has been filled already.
	s.Want("welcome\nmilk\n", "run", "--name", "app", "-v", "todo:/data", "app:v2")
	s.Want("welcome to version 2\n", "run", "--rm", "-v", "new:/data", "app:v2")
	s.Want("new\ntodo\n", "volume", "ls", "-q")
}

func TestExplicitVolumeOverVOLUME(t *testing.T) {
	s := newShop(t)
	host := harness.Dir(t)
	s.Do("run", "--name", "one", "-v", "mine:/data", "app:v1", "add", "milk")
	s.Do("run", "--name", "two", "-v", host+":/data", "app:v1", "add", "bread")
	s.Do("run", "--name", "three", "--tmpfs", "/data", "app:v1", "add", "gone at its end")
	s.Want("mine\n", "volume", "ls", "-q") // and no anonymous one
	s.holds(s.root+"/volumes/mine/data/list", "welcome\nmilk\n")
	s.holds(host+"/list", "bread\n")
	// Beside it, the image's VOLUME is still one.
	s.Do("run", "--name", "four", "-v", "mine:/elsewhere", "app:v1")
	if out := s.Do("volume", "ls", "-q"); strings.Count(out, "\n") != 2 {
		t.Errorf("volumes: %s", out)
	}
}

// The exercise: the application is to start with an empty list, though the image brings one.
func TestExerciseHideTheImagesDataBehindAnEmptyPlace(t *testing.T) {
	s := newShop(t)
	same := s.sameLayers()
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
	same()
	// Why: the empty place is in front, and what lies beneath is still there.
	view, umount := s.mount("--image", "app:v1", "--tmpfs", "/data")
	if out := s.Do("explain", view+"/data"); !strings.Contains(out, "tmpfs") || !strings.Contains(out, "hid") {
		t.Errorf("explain: %s", out)
	}
	s.gone(view + "/data/list")
	umount()
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
	s.holds(view+"/etc/app/app.conf", "from the image\n")
	s.Fails("is mounted", "volume", "rm", "todo")
	layers := func() int {
		list, err := os.ReadDir(s.root + "/layers")
		if err != nil {
			t.Error(err)
		}
		return len(list)
	}
	before := layers()
	umount()
	s.Do("image", "prune")
	if layers() != before-1 {
		t.Errorf("%d layers before the unmount and %d after it", before, layers())
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
