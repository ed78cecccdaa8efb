package harness

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Gluster is a GlusterFS volume of one brick on this machine, and its FUSE client. It has no
// management daemon: server and client read what the volume is from files.
type Gluster struct {
	At             string // where the client has mounted the volume
	dir            string
	server, client *exec.Cmd
}

// GlusterFS serves the directory brick, mounts the volume, and ends both with the test. The test
// is skipped without PLYFS_REAL=1, or where the programs are not installed.
func GlusterFS(t testing.TB, brick string) *Gluster {
	t.Helper()
	NeedRoot(t)
	if os.Getenv("PLYFS_REAL") != "1" {
		t.Skip("PLYFS_REAL=1 runs it")
	}
	for _, tool := range []string{"glusterfs", "glusterfsd"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Skip(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	g := &Gluster{dir: Dir(t)}
	g.At = g.dir + "/far"
	for name, text := range map[string]string{
		"brick.vol": fmt.Sprintf(`volume posix
type storage/posix
option directory %s
end-volume
volume brick
type features/locks
subvolumes posix
end-volume
volume server
type protocol/server
option transport-type tcp
option transport.socket.listen-port %d
option transport.socket.bind-address 127.0.0.1
option auth.addr.brick.allow 127.0.0.1
subvolumes brick
end-volume
`, brick, port),
		"client.vol": fmt.Sprintf(`volume client
type protocol/client
option transport-type tcp
option remote-host 127.0.0.1
option remote-port %d
option remote-subvolume brick
end-volume
`, port),
	} {
		if err := os.WriteFile(filepath.Join(g.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(g.At, 0o755); err != nil {
		t.Fatal(err)
	}
	g.StartServer(t)
	t.Cleanup(func() { end(g.server) })
	g.client = g.start(t, "glusterfs", "client", "--attribute-timeout=0", "--entry-timeout=0", "--negative-timeout=0", g.At)
	t.Cleanup(func() {
		_ = unix.Unmount(g.At, unix.MNT_DETACH)
		end(g.client)
	})
	g.await(t, true)
	return g
}

// start runs a program on one of the files.
func (g *Gluster) start(t testing.TB, program, what string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program, append([]string{"--no-daemon", "--volfile=" + g.dir + "/" + what + ".vol",
		"--log-file=" + g.dir + "/" + what + ".log", "--pid-file=" + g.dir + "/" + what + ".pid"}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func end(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// StartServer starts the server, again after KillServer.
func (g *Gluster) StartServer(t testing.TB) {
	t.Helper()
	g.server = g.start(t, "glusterfsd", "brick")
}

// KillServer kills the server, and waits until the client knows.
func (g *Gluster) KillServer(t testing.TB) {
	t.Helper()
	end(g.server)
	g.await(t, false)
}

// Await waits until the client has a server.
func (g *Gluster) Await(t testing.TB) {
	t.Helper()
	g.await(t, true)
}

func (g *Gluster) await(t testing.TB, served bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		var st unix.Statfs_t
		err := unix.Statfs(g.At, &st)
		if served && err == nil && st.Type == unix.FUSE_SUPER_MAGIC || !served && err != nil {
			return
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(g.dir + "/client.log")
			t.Fatalf("GlusterFS: served %v, want %v: %v\n%s", !served, served, err, log)
		}
	}
}
