package store

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/image/imagetest"
	"github.com/plyfs/plyfs/layer/layertest"
)

// Loads and removals of the same image from many sides at once.
func TestLoadConcurrently(t *testing.T) {
	s := open(t)
	dir := tempDir(t)
	imagetest.WriteLayout(t, dir+"/a", app("a:v1", "gzip"))
	other := app("b:v1", "gzip")
	other.Layers[2] = imagetest.Tree("f other x")
	imagetest.WriteLayout(t, dir+"/b", other)
	var wg sync.WaitGroup
	for n := range 6 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s, err := Open(s.Root())
			if err != nil {
				t.Error(err)
				return
			}
			for range 4 {
				if n == 0 {
					if _, err := s.Prune(true); err != nil {
						t.Error(err)
					}
					continue
				}
				got, err := load(t.Context(), s, dir+"/"+string("ab"[n%2]), image.OpenOptions{})
				if err != nil || len(got[0].Layers) != 3 {
					t.Error(got, err)
				}
			}
		}()
	}
	wg.Wait()
	for _, name := range []string{"a", "b"} {
		if _, err := load(t.Context(), s, dir+"/"+name, image.OpenOptions{}); err != nil {
			t.Error(err)
		}
	}
	all, err := s.Images()
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	for _, img := range all {
		for _, d := range img.LayerDirs() {
			if _, err := os.Stat(d); err != nil {
				t.Error(err)
			}
		}
	}
	if n, _ := s.layerNames(); len(n) != 4 {
		t.Errorf("%d layers, want 4", len(n))
	}
}

// loadVariable makes the test binary a command that loads an image, to be killed.
const loadVariable = "PLYFS_TEST_LOAD"

func TestMain(m *testing.M) {
	if args, ok := os.LookupEnv(loadVariable); ok {
		root, path, _ := strings.Cut(args, ":")
		s, err := Open(root)
		if err == nil {
			_, err = load(context.Background(), s, path, image.OpenOptions{})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	layertest.Main(m)
}

// A load killed at any moment leaves a store that works, and no image that is not whole.
func TestLoadKilled(t *testing.T) {
	layertest.NeedOwner(t)
	dir := tempDir(t)
	img := app("app:v1", "")
	for n := range 6 {
		img.Layers = append(img.Layers, imagetest.Tree(fmt.Sprintf("d d%d\nF d%d/big 300k\nf d%d/x y", n, n, n)))
	}
	imagetest.WriteLayout(t, dir+"/layout", img)
	root := dir + "/store"
	killed := 0
	for n := range 15 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), loadVariable+"="+root+":"+dir+"/layout")
		var out bytes.Buffer
		cmd.Stderr = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		exited := make(chan error, 1)
		go func() { exited <- cmd.Wait() }()
		// Not by the clock: after so many layers, and a little.
		for {
			done, _ := os.ReadDir(root + "/layers")
			staged, _ := os.ReadDir(root + "/staging")
			if len(done) > n%10 && len(staged) > 0 || len(done) == 9 {
				break
			}
			select {
			case err := <-exited:
				exited <- err
			case <-time.After(200 * time.Microsecond):
				continue
			}
			break
		}
		_ = cmd.Process.Kill()
		if err := <-exited; err != nil {
			killed++
		}
		if out.Len() > 0 {
			t.Fatal(out.String())
		}
		s, err := Open(root)
		if err != nil {
			t.Fatal(err)
		}
		all, err := s.Images()
		if err != nil || len(all) > 1 {
			t.Fatal(all, err)
		}
		if left, _ := os.ReadDir(s.Path("staging")); len(left) != 0 {
			t.Fatalf("left in staging: %v", left)
		}
		names, err := s.layerNames()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if err := s.rebuild(name); err != nil {
				t.Fatalf("layer %s is not whole: %v", name, err)
			}
		}
		if n%3 == 2 {
			if _, err := s.Prune(true); err != nil {
				t.Fatal(err)
			}
			if got := left(t, s); got != "" {
				t.Fatalf("left: %q", got)
			}
		}
	}
	if killed < 5 {
		t.Errorf("only %d loads were killed in the middle", killed)
	}
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := load(t.Context(), s, dir+"/layout", image.OpenOptions{}); err != nil || len(got[0].Layers) != 9 {
		t.Fatal(got, err)
	}
}
