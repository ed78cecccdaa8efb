package image

import (
	"encoding/base64"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// secret is what may be neither printed nor kept.
const secret = "s3cret"

// locked is a registry that only ann is let into, with this machine's platform and linux/riscv64 of team/app:v1.
func locked(t *testing.T) (host, ref string) {
	t.Helper()
	host = imagetest.Registry(t, "ann", secret)
	dir := harness.Dir(t)
	arch := func(platform string) *imagetest.Image {
		return &imagetest.Image{Platform: platform, How: "gzip", Layers: [][]imagetest.Entry{imagetest.Tree("f arch " + platform), imagetest.Tree("f top x")}}
	}
	imagetest.WriteLayout(t, dir+"/in", arch("linux/"+runtime.GOARCH), arch("linux/riscv64"))
	ref = host + "/team/app:v1"
	imagetest.Push(t, dir+"/in", ref, remote.WithAuth(&authn.Basic{Username: "ann", Password: secret}))
	return host, ref
}

// helper writes a credential helper, a program docker-credential-NAME as Docker calls it.
func helper(t *testing.T, dir, name, script string) {
	t.Helper()
	if err := os.WriteFile(dir+"/docker-credential-"+name, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// plyfs image pull gets its credentials where docker login puts them: the file, or a helper that it names; in
// $DOCKER_CONFIG or at home; as root and as an ordinary user. Without the right ones it says so in one line.
func TestPullCredentials(t *testing.T) {
	host, ref := locked(t)
	auth := base64.StdEncoding.EncodeToString([]byte("ann:" + secret))
	bin := harness.Dir(t)
	helper(t, bin, "good", `test "$1" = get && host=$(cat) && test "$host" = `+host+` && echo '{"ServerURL":"'$host'","Username":"ann","Secret":"`+secret+`"}'`)
	helper(t, bin, "wrong", `echo '{"ServerURL":"x","Username":"ann","Secret":"wr0ng"}'`)
	helper(t, bin, "empty", `echo "credentials not found in native keychain"; exit 1`)
	helper(t, bin, "broken", `echo "no session bus"; exit 1`)
	if err := os.Chmod(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ config, want string }{
		{"", "wants credentials, and there are none"},
		{`{}`, "wants credentials, and there are none"},
		{`{"auths": {"HOST": {"auth": "` + auth + `"}}}`, ""},
		{`{"auths": {"HOST/team/app": {"auth": "` + auth + `"}}}`, ""},
		{`{"auths": {"HOST": {"username": "ann", "password": "wr0ng"}}}`, "refuses the credentials"},
		{`{"auths": {"elsewhere.example": {"auth": "` + auth + `"}}}`, "wants credentials, and there are none"},
		{`{"credHelpers": {"HOST": "good"}}`, ""},
		{`{"credHelpers": {"HOST": "good"}, "credsStore": "broken"}`, ""},
		{`{"credHelpers": {"elsewhere.example": "good"}}`, "wants credentials, and there are none"},
		{`{"credsStore": "good"}`, ""},
		{`{"credsStore": "wrong"}`, "refuses the credentials"},
		{`{"credsStore": "empty"}`, "wants credentials, and there are none"},
		{`{"credsStore": "broken"}`, "credentials for HOST: "},
		{`{"credsStore": "missing"}`, "docker-credential-missing"},
		{`{"auths": `, "config.json"},
	} {
		c.want = strings.ReplaceAll(c.want, "HOST", host)
		for _, as := range []string{"root", "user"} {
			cli := &harness.CLI{T: t}
			home := harness.Dir(t)
			if as == "user" {
				cli.As = harness.NewAccount(t)
				home = cli.As.Home
			} else {
				harness.NeedRoot(t)
				cli.Root = home + "/store"
			}
			// Root's in $DOCKER_CONFIG, the user's at home.
			dir := home + "/.docker"
			if as == "root" {
				dir = home + "/config"
			}
			if c.config != "" {
				put(t, cli, dir, strings.ReplaceAll(c.config, "HOST", host))
			}
			cmd := cli.Command("image", "pull", ref)
			cmd.Env = append(cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+home, "DOCKER_CONFIG=", "REGISTRY_AUTH_FILE=", "XDG_CONFIG_HOME=")
			if as == "root" {
				cmd.Env = append(cmd.Env, "DOCKER_CONFIG="+dir, "XDG_RUNTIME_DIR="+home)
			}
			b, err := cmd.CombinedOutput()
			out := string(b)
			if strings.Contains(out, secret) || strings.Contains(out, "wr0ng") {
				t.Errorf("%s, %s: the password is in %q", as, c.config, out)
			}
			if c.want == "" {
				if err != nil || !strings.Contains(out, ref+"  ") || !strings.Contains(out, "layer 2 of 2") {
					t.Errorf("%s, %s: %v\n%s", as, c.config, err, out)
				}
				continue
			}
			if harness.ExitCode(err) != 1 || !strings.Contains(out, c.want) || strings.Count(out, "\n") != 1 {
				t.Errorf("%s, %s: %v, want %q in one line:\n%s", as, c.config, err, c.want, out)
			}
			cli.Want("[]\n", "image", "ls", "--json")
		}
	}
}

// put writes a configuration of Docker that only its owner may read.
func put(t *testing.T, c *harness.CLI, dir, text string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/config.json", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if c.As != nil {
		for _, path := range []string{dir, dir + "/config.json"} {
			if err := os.Chown(path, int(c.As.ID), int(c.As.ID)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Of an image for several platforms pull takes this machine's, or the one that is asked for.
func TestPullPlatform(t *testing.T) {
	harness.NeedRoot(t)
	host, ref := locked(t)
	c := &harness.CLI{T: t, Root: harness.Dir(t) + "/store"}
	dir := harness.Dir(t)
	put(t, c, dir, `{"auths": {"`+host+`": {"username": "ann", "password": "`+secret+`"}}}`)
	t.Setenv("DOCKER_CONFIG", dir)
	c.Do("image", "pull", "--platform", "linux/riscv64", ref)
	_, lowers := inspect(t, c.Root, ref)
	if b, err := os.ReadFile(lowers[1] + "/arch"); err != nil || string(b) != "linux/riscv64" {
		t.Errorf("%q, %v", b, err)
	}
	c.Fails("linux/riscv64", "image", "pull", "--platform", "linux/s390x", ref)
	c.Fails("nosuch", "image", "pull", host+"/team/nosuch:v1")
	c.Ends(2, "image", "pull", "--platform", "of/a/kind/unknown", ref)
	// What is there is not fetched again, and the other platform takes the name.
	if out := c.Do("image", "pull", "--platform", "linux/riscv64", ref); strings.Count(out, "was there") != 2 {
		t.Errorf("pulled again: %s", out)
	}
	c.Do("image", "pull", "--platform", "linux/"+runtime.GOARCH, "--name", "other:v1", ref)
	if _, lowers = inspect(t, c.Root, "other:v1"); len(lowers) != 2 {
		t.Errorf("%v", lowers)
	}
}
