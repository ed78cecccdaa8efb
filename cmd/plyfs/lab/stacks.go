package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Layers that several mounts, or several implementations, have in common.

func isRoot() bool { return os.Geteuid() == 0 }

var containersExercise = Exercise{
	Name: "containers", Title: "two containers from one image write apart",
	layers: []layer{
		{"app", []file{{name: "srv/app.conf", text: "port = 8080\n"}}},
		{"base", []file{{name: "etc/motd", text: "Welcome.\n"}, {name: "etc/hosts", text: "127.0.0.1 localhost\n"}}},
	},
	dirs:   []string{"upper-one", "work-one", "one", "upper-two", "work-two", "two"},
	uppers: []string{"upper-one", "upper-two"},
	prepare: []string{
		"sha256sum app/srv/* base/etc/* > sums",
	},
	mount: []string{
		"plyfs mount --lower app --lower base --upper upper-one --work work-one one",
		"plyfs mount --lower app --lower base --upper upper-two --work work-two two",
	},
	task: `An image of two layers, app and base, is mounted twice, each time with an upper of its own:
two containers.
1. Change etc/motd in one and in two, differently. Delete etc/hosts in two only.
2. Compare one, two and the layers. The file sums has the hashes of the image from before.`,
	try: []string{
		"echo one > one/etc/motd; echo two > two/etc/motd; rm two/etc/hosts",
		"tail one/etc/* two/etc/* base/etc/*",
		"plyfs diff one; plyfs diff two",
		"sha256sum -c sums",
	},
	question: "A third container is started from the image. What does it see, and what does it take on the disk?",
	answer: `The image as it was, and nothing: an empty upper. A hundred containers of one image share its layers
on the disk, and pay for what they change.`,
	solution: []step{
		{"Both begin with the same files.",
			"cat one/etc/motd two/etc/motd"},
		{"Each changes its own upper.",
			"echo one > one/etc/motd\necho two > two/etc/motd\nrm two/etc/hosts\ncat one/etc/motd two/etc/motd base/etc/motd\nls one/etc two/etc"},
		{"What a container changed is the content of its upper. docker diff says just that.",
			"plyfs diff one\nplyfs diff two\nfind upper-one upper-two -type f -o -type c"},
		{"The image is what it was, to the last bit.",
			"sha256sum -c sums"},
	},
	goals: []goal{
		{"etc/motd is one thing in one, and another in two", "echo one > one/etc/motd; echo two > two/etc/motd",
			func(s *state) bool {
				one, two := s.text("upper-one/etc/motd"), s.text("upper-two/etc/motd")
				return one != "" && two != "" && one != two
			}},
		{"etc/hosts is deleted in two, and only there", "rm two/etc/hosts, and leave one/etc/hosts",
			func(s *state) bool {
				return s.isWhiteout("upper-two/etc/hosts") && !s.isWhiteout("upper-one/etc/hosts")
			}},
	},
	happened: says(`Every copy-up went from the common layers to the upper of the mount in which somebody wrote. > cuts a file off before it
is written, so none of its old data was copied.`),
	rule: `The same: any number of mounts may have the same lowerdir; an upperdir and a workdir belong to one mount. It warns, or
refuses, if they are in use; plyfs takes a lock on them.`,
}

var kernelExercise = Exercise{
	Name: "kernel", Title: "the kernel's overlayfs takes the upper over", Root: true,
	layers: system, dirs: single, uppers: singleUpper,
	missing: noKernelOverlay,
	mount:   []string{mountSystem},
	task: `What plyfs writes is what the kernel's overlayfs writes. Check it.
1. Change something of each kind through mnt: delete, change, add, replace a directory.
   Write the hashes of all files in mnt to the file by-plyfs.
2. Unmount, mount the same directories with mount -t overlay, write the hashes to by-kernel,
   and compare.`,
	try: []string{
		"rm mnt/etc/hosts; echo changed >> mnt/etc/motd; rm -r mnt/srv; mkdir mnt/srv; echo new > mnt/srv/new",
		"find mnt -type f | sort | xargs sha256sum > by-plyfs",
		"plyfs umount mnt",
		"mount -t overlay overlay -o lowerdir=app:runtime:base,upperdir=upper,workdir=work mnt",
		"find mnt -type f | sort | xargs sha256sum > by-kernel; diff by-plyfs by-kernel && echo the same",
	},
	question: "May both be mounted at the same time, on the same upper?",
	answer: `No. Each believes that nobody else changes the upper, and keeps in memory what it has read. Layers that are only
read may be shared by any number of mounts of both kinds.`,
	solution: []step{
		{"Changes of all kinds: a whiteout, a copy-up, an opaque directory, a new file.",
			"rm mnt/etc/hosts\necho changed >> mnt/etc/motd\nrm -r mnt/srv\nmkdir mnt/srv\necho new > mnt/srv/new\n" +
				"find mnt -type f | sort | xargs sha256sum > by-plyfs"},
		{"The unmount completes the upper: from then on it is anybody's.",
			"plyfs umount mnt\nmount -t overlay overlay -o lowerdir=app:runtime:base,upperdir=upper,workdir=work mnt\ntail -n 1 /proc/mounts"},
		{"The kernel sees the same files.",
			"find mnt -type f | sort | xargs sha256sum > by-kernel\ndiff by-plyfs by-kernel && wc -l by-kernel"},
	},
	goals: []goal{
		{"something was deleted, changed and replaced through plyfs", "each leaves its mark in the upper: a whiteout, a copy, an opaque directory",
			func(s *state) bool {
				whiteouts, files, opaque := 0, 0, 0
				for _, e := range s.entries("upper") {
					switch {
					case e.Kind == "whiteout":
						whiteouts++
					case e.Kind == "file":
						files++
					case s.isOpaque(e.Path):
						opaque++
					}
				}
				return whiteouts > 0 && files > 0 && opaque > 0
			}},
		{"the kernel's overlayfs is mounted on mnt", "plyfs umount mnt; then mount -t overlay, with lowerdir=app:runtime:base, upperdir=upper, workdir=work",
			func(s *state) bool { return s.mounted("mnt") == "overlay" }},
		{"by-plyfs and by-kernel are the same", "find mnt -type f | sort | xargs sha256sum > by-plyfs, and later > by-kernel, with no change in between",
			func(s *state) bool { return s.text("by-plyfs") != "" && s.text("by-plyfs") == s.text("by-kernel") }},
	},
	happened: says(`plyfs wrote the kernel's own marks, in trusted.overlay. The unmount completed what was copied in part, and removed the
last mark that only plyfs understands. It works the other way round, too: unmount, and plyfs mount has the same upper.`),
	rule: `It reads the marks it would have written itself: character devices 0:0, opaque, redirect, origin, the index. While a
file in the upper is unfinished it refuses the upper: a directory incompat in the work directory has the reason.`,
}

// noKernelOverlay says why the kernel's overlayfs cannot be mounted in dir.
func noKernelOverlay(dir string) error {
	if !isRoot() {
		return errors.New("only root may mount the kernel's overlayfs")
	}
	probe := filepath.Join(dir, binDir, "probe")
	defer os.RemoveAll(probe)
	for _, d := range []string{"", "lower", "upper", "work", "mnt"} {
		if err := os.Mkdir(filepath.Join(probe, d), 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", probe, probe, probe)
	if err := unix.Mount("overlay", probe+"/mnt", "overlay", 0, options); err != nil {
		return fmt.Errorf("the kernel's overlayfs cannot be mounted in %s (TMPDIR names another place): %w", filepath.Dir(dir), err)
	}
	return unix.Unmount(probe+"/mnt", unix.MNT_DETACH)
}
