package store

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What builders write beside the letter of the specification is understood as Docker does.
func TestConfigOddities(t *testing.T) {
	c, err := parseConfig([]byte(`{"os":"linux","config":{"Env":["A=b","FOO","","=x","B="],"Cmd":null,"Healthcheck":{"Test":["NONE"]}},"history":null,"created":null}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"A=b", "B="}, c.Config.Env); diff != "" {
		t.Error(diff)
	}
	if _, err := parseConfig([]byte(`{"config":null}`)); err != nil {
		t.Error(err)
	}
	if c, err = parseConfig([]byte(`{"config":{"Entrypoint":["/a","b"],"Cmd":"c d"}}`)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Words{{"/a", "b"}, {"c d"}}, []Words{c.Config.Entrypoint, c.Config.Cmd}); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{`{"config":{"Env":["A=\u0000"]}}`, `{"config":{"User":"\u0000"}}`, `{"config":{"Cmd":["\u0000"]}}`, `{"config":{"Cmd":"\u0000"}}`, `{"config":{"Cmd":7}}`, `{"rootfs":{"diff_ids":["x"]}}`, `[]`, ``} {
		if _, err := parseConfig([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// VOLUMEs are paths from the root, whatever they begin with, and each is one mount.
func TestImageVolumes(t *testing.T) {
	s := open(t)
	img := &Image{ID: digestPrefix + strings.Repeat("a", 64), Config: Config{Volumes: map[string]struct{}{"data": {}, "/data/": {}, "/a/../../b": {}, "./c": {}, "/given": {}}}}
	c := &Container{Mounts: []Mount{{Type: TmpfsMount, Target: "/given"}}}
	if err := s.gatherMounts(c, nil, img); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range c.Mounts {
		got = append(got, m.Target)
	}
	if diff := cmp.Diff([]string{"/given", "/b", "/c", "/data"}, got); diff != "" {
		t.Error(diff)
	}
}
