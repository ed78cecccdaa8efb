package image

import (
	"regexp"
	"testing"
)

// What a file is called after becomes a name of an image, or nothing.
func TestBaseName(t *testing.T) {
	for in, want := range map[string]string{
		"/tmp/app": "app", "app.tar": "app", "App.tar.gz": "app", "a/b.TGZ": "b", "x.zst": "x", "-": "",
		"/t/_od": "od", "/t/.hidden": "hidden", "/t/a...b": "a--b", "/t/A B": "a-b", "/t/ümlaut": "mlaut", "/t/x_": "x", "/t/--": "", "/t/...": "",
		"/t/a__b": "a__b", "/t/a___b": "a-b", "/t/a__-b": "a-b", "/t/a--b": "a--b", "/t/a.b_c-d": "a.b_c-d", "/t/a._b": "a-b", "/t/wéird name!": "w-ird-name",
		"/t/sha256": "", "/": "",
	} {
		if got := baseName(in); got != want {
			t.Errorf("baseName(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzBaseName(f *testing.F) {
	for _, s := range []string{"a", "_od", "a...b", "wéird name!.TAR", "x\x00y"} {
		f.Add(s)
	}
	form := regexp.MustCompile(`^(?:[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)?$`)
	f.Fuzz(func(t *testing.T, s string) {
		if got := baseName("/t/" + s); !form.MatchString(got) {
			t.Errorf("baseName(%q) = %q", s, got)
		}
	})
}
