package store

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

func TestParseReference(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("0a", 32)
	for in, want := range map[string]string{
		"app":                            "app:latest",
		"app" + digest:                   "app" + digest,
		"app:v1" + digest:                "app" + digest,
		"docker.io/library/app" + digest: "app" + digest,
		"localhost:5000/a/b" + digest:    "localhost:5000/a/b" + digest,
		"localhost:5000/a:v1" + digest:   "localhost:5000/a" + digest,
	} {
		got, err := ParseReference(in)
		if err != nil || got != want {
			t.Errorf("ParseReference(%q) = %q, %v; want %q", in, got, err, want)
		}
		if again, err := ParseReference(got); err != nil || again != got {
			t.Errorf("ParseReference(%q) = %q, %v", got, again, err)
		}
	}
	for _, bad := range []string{digest, "@", "app@", "app@sha256:0", "app@" + strings.Repeat("0a", 32), "app" + strings.ToUpper(digest), "App" + digest,
		"app:" + digest, "app@v1" + digest, "app" + digest + ":v1", "app" + digest + digest, "app@sha512:" + strings.Repeat("0a", 64)} {
		if got, err := ParseReference(bad); err == nil {
			t.Errorf("ParseReference(%q) = %q", bad, got)
		}
	}
	// What is given to an image is a name, and none that looks like something else.
	for _, bad := range []string{"app" + digest, "app:v1" + digest, digest[1:], strings.Repeat("0a", 32), "sha256:v1"} {
		if got, err := ParseName(bad); err == nil {
			t.Errorf("ParseName(%q) = %q", bad, got)
		}
	}
}

// pull brings in an image from a registry as the command does.
func pull(t *testing.T, s *Store, ref string, names ...string) *Image {
	t.Helper()
	src, err := image.Pull(t.Context(), ref, image.PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if names == nil {
		names = src.Images[0].Names
	}
	img, err := s.Add(t.Context(), src.Images[0], AddOptions{Names: names, Source: ref})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// Every name that Docker takes for an image finds it, for every purpose; a digest is that of the manifest or of the
// index in which the registry has it.
func TestImageByDigest(t *testing.T) {
	host := imagetest.Registry(t, "", "")
	repo := host + "/team/app"
	dir := tempDir(t)
	imagetest.WriteLayout(t, dir+"/in", app("", "gzip"))
	index, err := imagetest.Push(t, dir+"/in", repo+":v1").Digest()
	if err != nil {
		t.Fatal(err)
	}
	manifest := imagetest.Digest(app("", "gzip").Build().Manifest)
	other := app("", "")
	other.Layers = append(other.Layers, imagetest.Tree("f more x"))
	imagetest.WriteLayout(t, dir+"/other", other)

	for _, how := range []struct {
		name string
		ref  string
		old  bool // as it was when digests were not written down
		want map[string]bool
	}{
		{"by tag", repo + ":v1", false, map[string]bool{"M": true, "I": true, ":v1": true}},
		{"by the index", repo + "@" + index.String(), false, map[string]bool{"M": true, "I": true, ":v1": false}},
		{"by the manifest", repo + "@" + manifest, false, map[string]bool{"M": true, "I": false, ":v1": false}},
		{"by tag and digest", repo + ":v9@" + index.String(), false, map[string]bool{"M": true, "I": true, ":v1": false, ":v9": false}},
		{"by tag, formerly", repo + ":v1", true, map[string]bool{"M": true, "I": false, ":v1": true}},
		{"by the index, formerly", repo + "@" + index.String(), true, map[string]bool{"M": true, "I": true, ":v1": false}},
	} {
		t.Run(how.name, func(t *testing.T) {
			s := open(t)
			img := pull(t, s, how.ref)
			if _, err := load(t.Context(), s, dir+"/other", image.OpenOptions{}); err != nil {
				t.Fatal(err)
			}
			if how.old {
				var rec imageRecord
				if err := ReadJSON(s.imagePath(img.ID, "image.json"), &rec); err != nil {
					t.Fatal(err)
				}
				rec.Digests = nil
				if err := WriteJSON(s.imagePath(img.ID, "image.json"), &rec); err != nil {
					t.Fatal(err)
				}
				n, err := s.readNames()
				if err != nil {
					t.Fatal(err)
				}
				for name := range n {
					if strings.Contains(name, "@") {
						delete(n, name)
					}
				}
				if err := s.writeNames(n); err != nil {
					t.Fatal(err)
				}
			} else if want := strings.Replace(how.ref, ":v9@", "@", 1); img.Name() != want || !slices.Contains(img.Names, want) {
				t.Errorf("it is called %s and has the names %v, want %s", img.Name(), img.Names, want)
			}
			how.want[digestPrefix] = true
			for ref, found := range how.want {
				for _, ref := range map[string][]string{
					"M": {repo + "@" + manifest, repo + ":v1@" + manifest, repo + ":none@" + manifest}, "I": {repo + "@" + index.String()},
					digestPrefix: {img.ID, img.ID[:20], img.ID[7:], img.ID[7:12]},
				}[ref] {
					got, err := s.Image(ref)
					if found && (err != nil || got.ID != img.ID) || !found && !errors.Is(err, ErrNotFound) {
						t.Errorf("%s: %v, %v; want it found: %v", ref, got, err, found)
					}
					if !found {
						continue
					}
					if err := s.Save(t.Context(), []string{ref}, tempDir(t)+"/out.tar", true); err != nil {
						t.Error(err)
					}
					if _, err := s.Tag(ref, "tagged"); err != nil {
						t.Error(err)
					}
					if got, err := s.RemoveImage("tagged", false); err != nil || len(got.Images) != 0 && how.name != "by the index, formerly" {
						t.Error(got, err)
					} else if len(got.Images) != 0 {
						return // it had no name, and the tag was its last
					}
				}
				if strings.HasPrefix(ref, ":") {
					if _, err := s.Image(repo + ref); found != (err == nil) {
						t.Errorf("%s: %v", repo+ref, err)
					}
				}
			}
			for _, ref := range []string{host + "/team/none@" + manifest, repo + "@" + digestPrefix + strings.Repeat("0", 64), "app@" + img.ID} {
				if _, err := s.Image(ref); !errors.Is(err, ErrNotFound) {
					t.Errorf("%s: %v", ref, err)
				}
			}
			if got, err := s.RemoveImage(how.ref, false); err != nil || len(got.Images) != 1 {
				t.Error(got, err)
			}
		})
	}
}

// An image that comes again under another name or digest is reported by that, and found by all of them. Prune takes
// none that was pulled by digest: that is a name.
func TestSameImageOtherNames(t *testing.T) {
	host := imagetest.Registry(t, "", "")
	dir := tempDir(t)
	imagetest.WriteLayout(t, dir+"/gzip", app("", "gzip"))
	imagetest.WriteLayout(t, dir+"/zstd", app("", "zstd"))
	imagetest.Push(t, dir+"/gzip", host+"/b/app:v1")
	zstd := imagetest.Push(t, dir+"/zstd", host+"/a/app:v1")
	index, err := zstd.Digest()
	if err != nil {
		t.Fatal(err)
	}
	s := open(t)
	one := pull(t, s, host+"/b/app:v1")
	half := s.imagePath(one.ID, newPrefix+"1") // what a kill left of a record
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	two := pull(t, s, host+"/a/app:v1")
	if one.ID != two.ID || one.Name() != host+"/b/app:v1" || two.Name() != host+"/a/app:v1" {
		t.Fatalf("%s and %s", one.Name(), two.Name())
	}
	if _, err := os.Lstat(half); err == nil {
		t.Error("half a record is left")
	}
	byDigest := host + "/a/app@" + index.String()
	if _, err := s.Image(byDigest); err != nil {
		t.Error(err)
	}
	if got := pull(t, s, byDigest); got.Name() != byDigest {
		t.Errorf("pulled %s, and called %s", byDigest, got.Name())
	}
	unchanged(t, s, func() { pull(t, s, byDigest) })
	want := []string{host + "/a/app:v1", byDigest, host + "/b/app:v1"}
	slices.Sort(want)
	img, err := s.Image(one.ID)
	if err != nil || img.Name() != ShortID(one.ID) || len(img.Digests) != 4 {
		t.Errorf("%s with the digests %v: %v", img.Name(), img.Digests, err)
	}
	if diff := cmp.Diff(want, img.Names); diff != "" {
		t.Error(diff)
	}
	// Saved by its digest, it has the names that are no digests.
	if err := s.Save(t.Context(), []string{byDigest, host + "/b/app:v1"}, dir+"/out.tar", true); err != nil {
		t.Fatal(err)
	}
	if got, err := load(t.Context(), open(t), dir+"/out.tar", image.OpenOptions{}); err != nil || len(got) != 1 || len(got[0].Names) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	for _, ref := range []string{host + "/a/app:v1", host + "/b/app:v1"} {
		if got, err := s.RemoveImage(ref, false); err != nil || len(got.Images) > 0 {
			t.Error(got, err)
		}
	}
	if got, err := s.Prune(false); err != nil || len(got.Images) > 0 {
		t.Error(got, err)
	}
	if got, err := s.RemoveImage(byDigest, false); err != nil || len(got.Images) != 1 {
		t.Error(got, err)
	}
	// A name with a digest is not to be had for an image that has another.
	src, err := image.Pull(t.Context(), host+"/b/app:v1", image.PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(t.Context(), src.Images[0], AddOptions{Names: []string{byDigest}}); err == nil {
		t.Error("it got the name of another image")
	}
}
