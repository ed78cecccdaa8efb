package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// SSHFS mounts dir by way of an SFTP server that is its child: no network, no keys. It returns where.
// The test is skipped where the tools are not installed.
func SSHFS(t testing.TB, dir string) string {
	t.Helper()
	server := "/usr/lib/openssh/sftp-server"
	for _, tool := range []string{"sshfs", server} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	at := filepath.Join(Dir(t), "far")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	MountSSHFS(t, dir, at)
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// MountSSHFS has sshfs speak to the server's standard input and output: "ssh" is a script that
// runs the server.
func MountSSHFS(t testing.TB, dir, at string) {
	t.Helper()
	script := filepath.Join(filepath.Dir(at), "ssh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec /usr/lib/openssh/sftp-server\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sshfs", "-o", "ssh_command="+script+",cache=no,allow_other,default_permissions", "localhost:"+dir, at).CombinedOutput()
	if err != nil {
		t.Fatalf("sshfs: %v\n%s", err, out)
	}
}
