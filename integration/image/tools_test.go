package image

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// tool runs another program, which must succeed, and returns what it printed.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	harness.NeedTool(t, name)
	cmd := exec.Command(name, args...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, said.String())
	}
	return string(out)
}

// saved is a store with an image, with a layer that plyfs packed, and the image as saved, a layout and an archive.
func saved(t *testing.T) (c *harness.CLI, dir, id string) {
	t.Helper()
	harness.NeedRoot(t)
	dir = harness.Dir(t)
	c = &harness.CLI{T: t, Root: dir + "/store"}
	box := imagetest.Busybox(t, "sh cat rm chown touch ls")
	imagetest.WriteLayout(t, dir+"/in", &imagetest.Image{Name: "app:v1", How: "gzip", Config: v1.Config{Cmd: []string{"cat", "/etc/a"}, Env: []string{"A=b"}},
		Layers: [][]imagetest.Entry{box, imagetest.Tree("d etc\nf etc/a text\nf etc/gone x\nu etc/a 5 6\nx etc/a user.colour blue\nd dir\nf dir/f x\nh dir/g dir/f")}})
	c.Do("image", "load", dir+"/in")
	c.Do("run", "--name", "one", "app:v1", "sh", "-c", "rm /etc/gone; rm -r /dir; echo new > /new; chown 7:8 /new; touch /etc/b")
	id = strings.TrimSpace(c.Do("commit", "one", "app:v2"))
	c.Do("image", "save", "-o", dir+"/out", "app:v2")
	c.Do("image", "save", "-o", dir+"/out.tar", "app:v2")
	return c, dir, id
}

// loads brings a source into an empty store: it must be the image with that id.
func loads(t *testing.T, id string, args ...string) {
	t.Helper()
	c := &harness.CLI{T: t, Root: harness.Dir(t) + "/store"}
	if got := strings.TrimSpace(c.Do(append([]string{"image", "load", "-q"}, args...)...)); got != id {
		t.Errorf("%v: image %s, want %s", args, got, id)
	}
	c.Want("text", "run", "--rm", id)
}

func TestSkopeo(t *testing.T) {
	harness.NeedTool(t, "skopeo")
	_, dir, id := saved(t)
	for _, from := range []string{"oci:" + dir + "/out:v2", "oci-archive:" + dir + "/out.tar:v2"} {
		if out := tool(t, "skopeo", "inspect", "--config", from); !strings.Contains(out, "A=b") {
			t.Errorf("skopeo inspect %s: %s", from, out)
		}
	}
	for to, flags := range map[string][]string{
		"docker-archive:/docker.tar:other:v1":  nil,
		"oci:/gzip:other:v1":                   nil,
		"oci:/zstd:other:v1":                   {"--dest-compress", "--dest-compress-format=zstd"},
		"oci:/plain:other:v1":                  {"--dest-oci-accept-uncompressed-layers", "--dest-decompress"},
		"oci-archive:/archive.tar:other:v1":    nil,
		"docker-archive:/again.tar:again:v1":   nil,
		"oci-archive:/unnamed.tar":             nil,
		"docker-archive:/unnamed-docker.tar":   nil,
		"oci:/other-compression:zstd-level:v1": {"--dest-compress", "--dest-compress-format=gzip", "--dest-compress-level=9"},
	} {
		kind, path, _ := strings.Cut(to, ":")
		args := append([]string{"--insecure-policy", "copy", "-q"}, flags...)
		tool(t, "skopeo", append(args, "oci:"+dir+"/out:v2", kind+":"+dir+path)...)
		file, _, _ := strings.Cut(path, ":")
		loads(t, id, dir+file)
	}
	// The directory form has every blob checked.
	tool(t, "skopeo", "--insecure-policy", "copy", "-q", "oci-archive:"+dir+"/out.tar", "dir:"+dir+"/dir")
}

// An index for several platforms, as skopeo copies it.
func TestSkopeoPlatforms(t *testing.T) {
	harness.NeedTool(t, "skopeo")
	harness.NeedRoot(t)
	dir := harness.Dir(t)
	arch := func(platform string) *imagetest.Image {
		return &imagetest.Image{Platform: platform, How: "gzip", Layers: [][]imagetest.Entry{imagetest.Tree("f arch " + platform)}}
	}
	imagetest.WriteNestedLayout(t, dir+"/in", "app:v1", arch("linux/amd64"), arch("linux/arm64"), arch("linux/arm/v7"))
	tool(t, "skopeo", "--insecure-policy", "copy", "-q", "--multi-arch=all", "oci:"+dir+"/in:app:v1", "oci:"+dir+"/all:app:v1")
	c := &harness.CLI{T: t, Root: dir + "/store"}
	for _, platform := range []string{"linux/arm64", "linux/arm/v7", "linux/amd64"} {
		c.Do("image", "load", "--platform", platform, dir+"/all")
		_, lowers := inspect(t, c.Root, "app:v1")
		if b, err := os.ReadFile(lowers[0] + "/arch"); err != nil || string(b) != platform {
			t.Errorf("--platform %s: %q, %v", platform, b, err)
		}
	}
	c.Fails("there is linux/amd64, linux/arm/v7, linux/arm64", "image", "load", "--platform", "linux/s390x", dir+"/all")
}

// What umoci unpacks is what plyfs shows, owners, times and attributes too.
func TestUmoci(t *testing.T) {
	harness.NeedTool(t, "umoci")
	c, dir, _ := saved(t)
	tool(t, "umoci", "stat", "--image", dir+"/out:v2")
	tool(t, "umoci", "unpack", "--image", dir+"/out:v2", dir+"/bundle")
	view := harness.Dir(t)
	c.Do("mount", "--image", "app:v2", view)
	defer c.Do("umount", view)
	// The root directory is not in the first layer, and umoci has its own idea of one.
	want, got := harness.Dump(t, view, true)[1:], harness.Dump(t, dir+"/bundle/rootfs", true)[1:]
	for i := range want {
		// Nanoseconds are beyond umoci, and the attributes it does not need: see docs/images.md.
		if i >= len(got) || withoutFraction(want[i]) != withoutFraction(got[i]) {
			t.Fatalf("plyfs %s\numoci %s", strings.Join(want, "\n"), strings.Join(got, "\n"))
		}
	}
	// And the other way: what umoci changed and packed.
	if err := os.WriteFile(dir+"/bundle/rootfs/etc/umoci", []byte("was here"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir + "/bundle/rootfs/new"); err != nil {
		t.Fatal(err)
	}
	tool(t, "umoci", "repack", "--image", dir+"/out:v3", dir+"/bundle")
	c.Do("image", "load", dir+"/out")
	c.Want("was here", "run", "--rm", "out:v3", "cat", "/etc/umoci")
	c.Ends(1, "run", "--rm", "out:v3", "cat", "/new")
}

func withoutFraction(line string) string {
	before, after, found := strings.Cut(line, " mtime=")
	if !found {
		return line
	}
	stamp, rest, _ := strings.Cut(after, " ")
	seconds, _, _ := strings.Cut(stamp, ".")
	return before + seconds + rest
}

func TestPodmanAndBuildah(t *testing.T) {
	harness.NeedTool(t, "podman")
	harness.NeedTool(t, "buildah")
	_, dir, id := saved(t)
	policy := dir + "/policy.json"
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	storage := []string{"--root", dir + "/graph", "--runroot", dir + "/run", "--storage-driver", "vfs"}
	podman := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(tool(t, "podman", append(append(storage[:len(storage):len(storage)], "--events-backend", "file", "--cgroup-manager", "cgroupfs"), args...)...))
	}
	buildah := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(tool(t, "buildah", append(storage[:len(storage):len(storage)], args...)...))
	}
	if got := podman("pull", "-q", "--signature-policy", policy, "oci:"+dir+"/out:v2"); "sha256:"+got != id {
		t.Errorf("podman pulled %s, want %s", got, id)
	}
	if got := podman("load", "-q", "--signature-policy", policy, "-i", dir+"/out.tar"); !strings.Contains(got, "app:v2") {
		t.Errorf("podman load: %s", got)
	}
	podman("save", "-q", "-o", dir+"/podman.tar", id)
	loads(t, id, dir+"/podman.tar")

	from := buildah("from", "--signature-policy", policy, id)
	if err := os.WriteFile(dir+"/hello", []byte("built\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	buildah("add", from, dir+"/hello", "/hello")
	buildah("config", "--cmd", "cat /hello", from)
	c := &harness.CLI{T: t, Root: harness.Dir(t) + "/store"}
	for format, to := range map[string]string{"oci": "oci-archive:" + dir + "/built.tar:built:v1", "docker": "docker-archive:" + dir + "/docker.tar:built:v2"} {
		buildah("commit", "--signature-policy", policy, "-q", "--format", format, from, to)
		_, path, _ := strings.Cut(to, ":")
		path, _, _ = strings.Cut(path, ":")
		c.Do("image", "load", path)
	}
	c.Want("built\n", "run", "--rm", "built:v1")
	c.Want("built\n", "run", "--rm", "built:v2")
	buildah("rm", "-a")
	podman("rmi", "-a", "-f")
}
