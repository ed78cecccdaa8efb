package store

import (
	"strings"
	"testing"
)

// A name has one full form, which is its own; and none of them is a way to anywhere.
func FuzzParseName(f *testing.F) {
	for _, name := range []string{"app", "docker.io/library/debian:12", "localhost:5000/a/b:c", "[::1]:5000/a", "../a", "a@sha256:0", "docker.io/docker.io/a"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		full, err := ParseName(name)
		if err != nil {
			return
		}
		if again, err := ParseName(full); err != nil || again != full {
			t.Errorf("%q is %q, and that is %q (%v)", name, full, again, err)
		}
		if strings.ContainsAny(full, "\x00\n\\ ") || strings.HasPrefix(full, "/") || strings.Contains(full, "..") || strings.Contains(full, "//") {
			t.Errorf("%q is %q", name, full)
		}
	})
}
