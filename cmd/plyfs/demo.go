package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/overlay/fusefs"
)

var demoCmd = command{
	name:  "demo",
	short: "show on a small example how layers work",
	long: `Makes three layers in a temporary directory, mounts them, looks around, changes a few
things, shows where the changes went, and takes everything away again.`,
	run: runDemo,
}

// sampleFile is one file or directory (name ends in /) of the sample; link names the
// file it is a hard link to.
type sampleFile struct{ name, text, link string }

// The sample, bottom layer first: a hard link pair, a file that is overridden twice, a
// directory that is replaced (opaque), a file that is deleted (whiteout).
var (
	sampleBase = []sampleFile{
		{name: "bin/tool", text: "#!/bin/sh\necho tool 1.0\n"},
		{name: "bin/tool-1.0", link: "bin/tool"},
		{name: "etc/motd", text: "Welcome to the base system.\n"},
		{name: "etc/hosts", text: "127.0.0.1 localhost\n"},
		{name: "opt/trial.txt", text: "Thirty days left.\n"},
		{name: "var/cache/old-index", text: "stale\n"},
		{name: "var/cache/old-list", text: "stale\n"},
	}
	sampleRuntime = []sampleFile{
		{name: "etc/motd", text: "Welcome to the runtime.\n"},
		{name: "usr/lib/runtime.conf", text: "threads = 4\n"},
		{name: "var/cache/new-index", text: "fresh\n"},
	}
	sampleApp = []sampleFile{
		{name: "etc/motd", text: "Welcome to the application.\n"},
		{name: "srv/app.conf", text: "port = 8080\n"},
		{name: "opt/"},
	}
)

// A tour is shell commands, each with what to look at.
var demoTour = []struct{ text, script string }{
	{"Three layers, as an image has them. The 'c' entry in app/opt is a whiteout: it deletes\n" +
		"trial.txt from the layers below. runtime/var/cache is opaque: it replaces that directory.",
		"ls -l base/etc base/opt base/var/cache runtime/var/cache app/opt"},
	{"Mounted as one tree, the topmost layer first. 'upper' is empty and will take all changes.",
		"plyfs mount --lower app --lower runtime --lower base --upper upper --work work mnt"},
	{"etc/motd is in all three layers. The topmost wins.",
		"cat mnt/etc/motd\nplyfs explain mnt/etc/motd"},
	{"opt/trial.txt is in base, and gone from the view.",
		"ls -A mnt/opt\nplyfs explain mnt/opt/trial.txt"},
	{"var/cache shows only what the runtime layer put there.",
		"ls mnt/var/cache\nplyfs explain mnt/var/cache"},
	{"bin/tool and bin/tool-1.0 are one file with two names. A write to one copies the file up,\n" +
		"once, and both names show it. The file in base stays as it was.",
		"ls -i mnt/bin\necho '# changed' >> mnt/bin/tool\nls -i mnt/bin\ntail -n 1 mnt/bin/tool-1.0\ncat base/bin/tool\nplyfs explain mnt/bin/tool"},
	{"Deleting a lower file makes a whiteout in the upper.",
		"rm mnt/etc/hosts\nls -l upper/etc"},
	{"So this is all that changed, and what it took:",
		"plyfs diff mnt\nplyfs stat mnt"},
	{"Unmounted: the daemon is gone, and the upper holds the changes. Mounted again, they\nwould be there again.",
		"plyfs umount mnt\nfind upper | sort"},
}

func runDemo(c *command, args []string) (err error) {
	f := c.flags()
	if err := c.parse(f, args, 0, 0); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "plyfs-demo-")
	if err != nil {
		return err
	}
	mnt := filepath.Join(dir, "mnt")
	defer func() {
		_ = fusefs.Detach(mnt) // in case the tour ended early
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM) // the tour's commands end by themselves
	if err := makeSample(dir); err != nil {
		return err
	}
	before, err := fingerprint(dir, "base", "runtime", "app")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, ".bin"), 0o755)
	}
	if err == nil {
		err = os.Symlink(self, filepath.Join(dir, ".bin/plyfs"))
	}
	if err != nil {
		return err
	}
	for i, step := range demoTour {
		fmt.Printf("%d. %s\n\n", i+1, strings.ReplaceAll(step.text, "\n", "\n   "))
		for line := range strings.Lines(step.script) {
			select {
			case <-stop:
				return errors.New("demo: interrupted")
			default:
			}
			if err := demoCommand(dir, strings.TrimSpace(line)); err != nil {
				return err
			}
		}
		fmt.Println()
	}
	after, err := fingerprint(dir, "base", "runtime", "app")
	if err != nil {
		return err
	}
	if before != after {
		return errors.New("demo: the lower layers changed, which must not happen")
	}
	fmt.Println("The three layers are what they were, to the last byte and attribute. The demo's directory is removed.")
	return nil
}

func demoCommand(dir, line string) error {
	fmt.Printf("   $ %s\n", line)
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, ".bin")+":"+os.Getenv("PATH"), "LC_ALL=C")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	for l := range strings.Lines(out.String()) {
		fmt.Print("     ", strings.ReplaceAll(l, dir+"/", ""))
	}
	if err != nil {
		return fmt.Errorf("demo: %s: %w", line, err)
	}
	return nil
}

func makeSample(dir string) error {
	for _, d := range []string{"base", "runtime", "app", "upper", "work", "mnt"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for layer, files := range map[string][]sampleFile{"base": sampleBase, "runtime": sampleRuntime, "app": sampleApp} {
		for _, f := range files {
			if err := makeSampleFile(filepath.Join(dir, layer), f); err != nil {
				return err
			}
		}
	}
	if err := unix.Mknod(filepath.Join(dir, "app/opt/trial.txt"), unix.S_IFCHR, 0); err != nil {
		return fmt.Errorf("making a whiteout: %w", err)
	}
	return makeOpaque(filepath.Join(dir, "runtime/var/cache"))
}

func makeSampleFile(layer string, f sampleFile) error {
	path := filepath.Join(layer, f.name)
	if strings.HasSuffix(f.name, "/") {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if f.link != "" {
		return os.Link(filepath.Join(layer, f.link), path)
	}
	return os.WriteFile(path, []byte(f.text), 0o644)
}

// makeOpaque marks a directory as replacing those below it: for the kernel if we may,
// else for ourselves, else as AUFS did.
func makeOpaque(dir string) error {
	attr := "trusted.overlay.opaque"
	if os.Geteuid() != 0 {
		attr = "user.overlay.opaque"
	}
	if unix.Setxattr(dir, attr, []byte("y"), 0) == nil {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, ".wh..wh..opq"), nil, 0o644)
}

// fingerprint is a digest of all there is to see in the given directories.
func fingerprint(dir string, layers ...string) (string, error) {
	h := sha256.New()
	for _, l := range layers {
		err := filepath.WalkDir(filepath.Join(dir, l), func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				return err
			}
			fmt.Fprintf(h, "%q %o %d %d %d %d %d %d %v\n", path, st.Mode, st.Ino, st.Nlink, st.Uid, st.Gid, st.Size, st.Rdev, st.Mtim)
			if !e.Type().IsRegular() {
				return nil
			}
			text, err := os.ReadFile(path)
			h.Write(text)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
