package image

import (
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/integration/harness"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// cutOff hands on so many bytes of an answer, and then the connection breaks.
type cutOff struct {
	http.ResponseWriter
	left int
}

func (c *cutOff) Write(b []byte) (int, error) {
	if len(b) > c.left {
		_, _ = c.ResponseWriter.Write(b[:c.left])
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(b)
	return c.ResponseWriter.Write(b)
}

// What goes wrong with a registry is said with what to do about it, and leaves nothing.
func TestPullFails(t *testing.T) {
	harness.NeedRoot(t)
	real := imagetest.Registry(t, "", "")
	dir := harness.Dir(t)
	imagetest.WriteLayout(t, dir+"/in", &imagetest.Image{Layers: [][]imagetest.Entry{{imagetest.File("big", 0o644, harness.Bytes(1<<20))}}})
	imagetest.Push(t, dir+"/in", real+"/app:v1")
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: real})
	c := &harness.CLI{T: t, Root: dir + "/store"}
	fails := func(want, ref string) {
		t.Helper()
		c.Fails(want, "image", "pull", ref)
		c.Want("[]\n", "image", "ls", "--json")
		if got := names(t, c.Root+"/layers") + names(t, c.Root+"/staging"); got != "" {
			t.Errorf("left: %s", got)
		}
	}
	fails(real+" has no such image", real+"/app:nosuch")
	fails(real+" has no such image", real+"/nosuch")

	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			w = &cutOff{w, 100 << 10}
		}
		proxy.ServeHTTP(w, r)
	}))
	defer broken.Close()
	host := strings.TrimPrefix(broken.URL, "http://")
	fails(host+" broke off after 102400 of ", host+"/app:v1")

	// Another address of this machine is none that may do without TLS.
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	other := &httptest.Server{Listener: l, Config: &http.Server{Handler: proxy}}
	other.Start()
	defer other.Close()
	fails("--plain-http", l.Addr().String()+"/app:v1")
	c.Do("image", "pull", "--plain-http", l.Addr().String()+"/app:v1")
	c.Do("image", "prune", "-a")

	secure := httptest.NewTLSServer(proxy)
	defer secure.Close()
	host = strings.TrimPrefix(secure.URL, "https://")
	fails("SSL_CERT_FILE", host+"/app:v1")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(dir+"/ca.pem", cert, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", dir+"/ca.pem")
	c.Do("image", "pull", host+"/app:v1")
}
