package store

import (
	"encoding/base64"
	"os"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// Credentials are those of Docker's configuration; without the right ones the error is one line that says so.
func TestPullCredentials(t *testing.T) {
	host := imagetest.Registry(t, "ann", "secret")
	ref := host + "/team/app:v1"
	dir := tempDir(t)
	imagetest.WriteLayout(t, dir+"/in", app("app:v1", "gzip"))
	imagetest.Push(t, dir+"/in", ref, remote.WithAuth(&authn.Basic{Username: "ann", Password: "secret"}))
	t.Setenv("HOME", dir)
	t.Setenv("REGISTRY_AUTH_FILE", dir+"/none")
	t.Setenv("XDG_RUNTIME_DIR", dir)
	for _, c := range []struct{ config, want string }{
		{"", "there are none"},
		{`{"auths": {"` + host + `": {"auth": "` + base64.StdEncoding.EncodeToString([]byte("ann:secret")) + `"}}}`, ""},
		{`{"auths": {"` + host + `": {"username": "ann", "password": "secret"}}}`, ""},
		{`{"auths": {"` + host + `": {"username": "ann", "password": "wrong"}}}`, "refuses the credentials"},
		{`{"auths": {"elsewhere.example": {"username": "ann", "password": "secret"}}}`, "there are none"},
		{`{"auths": `, ""},
	} {
		config := tempDir(t)
		t.Setenv("DOCKER_CONFIG", config)
		if c.config != "" {
			if err := os.WriteFile(config+"/config.json", []byte(c.config), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s := open(t)
		src, err := image.Pull(t.Context(), ref, image.PullOptions{})
		if err == nil {
			_, err = s.Add(t.Context(), src.Images[0], AddOptions{})
		}
		valid := strings.HasSuffix(c.config, "}")
		switch {
		case valid && c.want == "":
			if err != nil {
				t.Errorf("%s: %v", c.config, err)
			}
		case err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "wrong"):
			t.Errorf("%s: %v, want %q in one line", c.config, err, c.want)
		}
	}
}
