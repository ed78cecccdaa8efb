package image

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// stalled hands on so many bytes of an answer, and then says so and waits for whoever asked to go away.
type stalled struct {
	http.ResponseWriter
	left int
	r    *http.Request
	said chan struct{}
}

func (s *stalled) Write(b []byte) (int, error) {
	if len(b) <= s.left {
		s.left -= len(b)
		return s.ResponseWriter.Write(b)
	}
	_, _ = s.ResponseWriter.Write(b[:s.left])
	s.ResponseWriter.(http.Flusher).Flush()
	s.said <- struct{}{}
	<-s.r.Context().Done()
	panic(http.ErrAbortHandler)
}

// A pull that is interrupted says so once, ends as a program does that the signal ended, asks for nothing further, and
// leaves nothing.
func TestPullInterrupted(t *testing.T) {
	harness.NeedRoot(t)
	real := imagetest.Registry(t, "", "")
	dir := harness.Dir(t)
	imagetest.WriteLayout(t, dir+"/in", &imagetest.Image{Layers: [][]imagetest.Entry{
		{imagetest.File("small", 0o644, []byte("x"))}, {imagetest.File("big", 0o644, harness.Bytes(1<<20))}}})
	imagetest.Push(t, dir+"/in", real+"/app:v1")
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: real})
	said := make(chan struct{}, 8)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			w = &stalled{w, 100 << 10, r, said}
		}
		proxy.ServeHTTP(w, r)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		c := &harness.CLI{T: t, Root: dir + "/" + unix.SignalName(sig)}
		cmd := c.Command("image", "pull", host+"/app:v1", host+"/app:v2")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-said
		if err := cmd.Process.Signal(os.Signal(sig)); err != nil {
			t.Error(err)
		}
		if code := harness.ExitCode(cmd.Wait()); code != 128+int(sig) {
			t.Errorf("%v: exit code %d", sig, code)
		}
		_, text, _ := strings.Cut(out.String(), "unpacked\n")
		if text != "plyfs: image pull: interrupted\n" {
			t.Errorf("%v: %q", sig, out.String())
		}
		c.Want("[]\n", "image", "ls", "--json")
		if got := names(t, c.Root+"/layers") + names(t, c.Root+"/staging"); got != "" {
			t.Errorf("%v: left: %s", sig, got)
		}
	}
}

// So does a load of what never comes, and a save to who never reads.
func TestPipeInterrupted(t *testing.T) {
	harness.NeedRoot(t)
	dir := harness.Dir(t)
	c := &harness.CLI{T: t, Root: dir + "/store"}
	imagetest.WriteLayout(t, dir+"/in", &imagetest.Image{Name: "app:v1", Layers: [][]imagetest.Entry{{imagetest.File("big", 0o644, harness.Bytes(1<<20))}}})
	c.Do("image", "load", "-q", dir+"/in")
	packed := c.Do("image", "save", "app:v1")
	for _, args := range [][]string{{"image", "load", "-"}, {"image", "save", "app:v1"}} {
		ours, theirs, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := c.Command(args...)
		var out bytes.Buffer
		cmd.Stderr = &out
		if args[1] == "load" {
			ours, theirs = theirs, ours
			cmd.Stdin = theirs
		} else {
			cmd.Stdout = theirs
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// It waits when it has read all there is, or written all that the pipe takes.
		waits := func(n int) bool { return n >= 60<<10 }
		if args[1] == "load" {
			if _, err := ours.WriteString(packed[:300<<10]); err != nil {
				t.Error(err)
			}
			waits = func(n int) bool { return n == 0 }
		}
		for n := -1; n < 0 || !waits(n); time.Sleep(time.Millisecond) {
			if n, err = unix.IoctlGetInt(int(theirs.Fd()), unix.TIOCINQ); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Error(err)
		}
		overdue := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		err = cmd.Wait()
		overdue.Stop()
		ours.Close()
		theirs.Close()
		if want := "plyfs: image " + args[1] + ": interrupted\n"; harness.ExitCode(err) != 128+int(unix.SIGTERM) || out.String() != want {
			t.Errorf("%v: %v, %q", args, err, out.String())
		}
		if got := names(t, c.Root+"/staging"); got != "" {
			t.Errorf("%v: left: %s", args, got)
		}
	}
}
