package overlay

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// An upper and its work directory belong to one mount at a time, and to nobody else.

// lock takes the flock that every mount of ours holds on its upper and its work.
func (fs *FS) lock(fd int, path string) error {
	own, err := layer.Open(fd, "", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return failure(path, "cannot read", err)
	}
	if err := unix.Flock(own, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if err == unix.EWOULDBLOCK && fs.awaitLock(own, fs.cfg.Work) {
			fs.closers = append(fs.closers, fdCloser(own))
			return nil
		}
		unix.Close(own)
		if err == unix.EWOULDBLOCK {
			return refusal(path, "is in use by another mount; unmount that first", unix.EBUSY)
		}
		return nil // a filesystem without locks: nothing to compare with
	}
	fs.closers = append(fs.closers, fdCloser(own))
	return nil
}

type fdCloser int

func (c fdCloser) Close() error { return unix.Close(int(c)) }

// kernelUses refuses an upper that the kernel's overlayfs has mounted: it keeps no
// lock that others see, but its options are in the mount table. Other mount namespaces have tables of
// their own; those that we may read are looked at unless upper and work are as new.
func kernelUses(upper, work string) error {
	tables := []string{"/proc/self"}
	if !empty(upper) || exists(filepath.Join(work, "work")) {
		others, _ := filepath.Glob("/proc/[0-9]*")
		tables = append(tables, others...)
	}
	seen := map[string]bool{}
	for _, proc := range tables {
		ns, err := os.Readlink(proc + "/ns/mnt")
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		table, err := os.ReadFile(proc + "/mountinfo")
		if err != nil {
			continue
		}
		if path := overlayUses(string(table), proc+"/root", upper, work); path != "" {
			return refusal(path, "is in use by a mount of the kernel's overlayfs; unmount that first", unix.EBUSY)
		}
	}
	return nil
}

func empty(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	return err == io.EOF
}

func exists(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil
}

// overlayUses returns which of upper and work an overlayfs of a mount table has, "" for none. The paths in
// the table begin at root.
func overlayUses(table, root, upper, work string) string {
	for line := range strings.Lines(table) {
		_, tail, ok := strings.Cut(line, " - overlay ")
		if !ok {
			continue
		}
		f := strings.Fields(tail)
		if len(f) < 2 {
			continue
		}
		for _, o := range strings.Split(f[1], ",") {
			for key, path := range map[string]string{"upperdir=": upper, "workdir=": work} {
				used, ok := strings.CutPrefix(o, key)
				if used = unescapeMount(used); ok && (sameDir(used, path) || sameDir(root+used, path)) {
					return path
				}
			}
		}
	}
	return ""
}

func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\054`, ",", `\072`, ":").Replace(s)
}

func sameDir(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// checkForeign refuses a work directory that holds what no union put there.
func checkForeign(fd int, path string) error {
	ents, err := layer.ReadDir(fd)
	if err != nil {
		return failure(path, "cannot read the work directory", err)
	}
	for _, e := range ents {
		if e.Name != "work" && e.Name != "index" {
			return refusal(path, fmt.Sprintf("the work directory holds %q, which no union put there; use an empty directory", e.Name), unix.ENOTEMPTY)
		}
	}
	return nil
}
