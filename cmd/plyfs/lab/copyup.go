package lab

import (
	"github.com/plyfs/plyfs/cow"
)

// What a copy-up copies.

// big is the size of a file that is copied by range.
const big = 16 << 20

var rangeExercise = Exercise{
	Name: "range", Title: "change one byte of a large file: copy-up whole and by range",
	layers: []layer{{"image", []file{{name: "disk.img", size: big}}}},
	dirs:   []string{"upper", "work", "mnt", "upper-whole", "work-whole", "whole"},
	uppers: []string{"upper", "upper-whole"},
	mount: []string{
		"plyfs mount --lower image --upper upper --work work --settle-budget off mnt",
		"plyfs mount --lower image --upper upper-whole --work work-whole --threshold off whole",
	},
	task: `One layer with a file of 16 MiB is mounted twice. In whole every copy-up copies the whole
file; in mnt only what is written, and the rest later (--settle-budget off: not before
somebody asks).
1. Change one byte of whole/disk.img, and of mnt/disk.img. Compare size and space in the
   uppers.
2. Have mnt completed, and compare again.`,
	try: []string{
		"printf X | dd of=mnt/disk.img bs=1 seek=8000000 conv=notrunc",
		"ls -ls upper upper-whole",
		"plyfs explain mnt/disk.img",
		"plyfs stat mnt",
		"plyfs settle mnt; ls -ls upper",
	},
	question: "Before it is complete upper/disk.img has holes. Where does a reader of mnt/disk.img get those bytes from?",
	answer: `From image/disk.img. A block that the upper's file has as data is its own; a hole is read from the lower file that the
mark overlay.plyfs names. So nobody may change the lower file; it is checked at every read.`,
	solution: []step{
		{"The whole way, as the kernel's overlayfs does it: 16 MiB are copied before the one byte is written.",
			"printf X | dd of=whole/disk.img bs=1 seek=8000000 conv=notrunc status=none\nls -ls upper-whole"},
		{"By range: the file has its full size, and takes the space of the blocks that were written (first column, in KiB).",
			"printf X | dd of=mnt/disk.img bs=1 seek=8000000 conv=notrunc status=none\nls -ls upper\nplyfs explain mnt/disk.img"},
		{"The two views have the same content all the same.",
			"cmp mnt/disk.img whole/disk.img\ncmp -l mnt/disk.img image/disk.img | wc -l"},
		{"What is missing is copied when somebody asks, when the mount has nothing to do, or at the unmount.",
			"plyfs settle mnt\nls -ls upper\nplyfs explain mnt/disk.img"},
	},
	goals: []goal{
		{"one byte of whole/disk.img is changed in place", "printf X | dd of=whole/disk.img bs=1 seek=8000000 conv=notrunc; without notrunc dd cuts the file off",
			func(s *state) bool {
				return s.differing(s.seen("whole", "upper-whole", "disk.img"), "image/disk.img") == 1
			}},
		{"one byte of mnt/disk.img is changed in place", "printf X | dd of=mnt/disk.img bs=1 seek=8000000 conv=notrunc",
			func(s *state) bool {
				return s.differing(s.seen("mnt", "upper", "disk.img"), "image/disk.img") == 1
			}},
		{"upper/disk.img is complete", "plyfs settle mnt",
			func(s *state) bool {
				_, unfinished := s.mark("upper/disk.img", "plyfs")
				return s.isFile("upper/disk.img") && !unfinished
			}},
	},
	happened: func(s *state) string {
		for _, ev := range s.copied("mnt", "/disk.img", cow.CauseWrite) {
			if ev.Method == cow.MethodClone {
				return `This filesystem can share the blocks of files (a clone), so neither mount had anything to copy:
both files were complete at once, and ls counts the shared blocks in each. TMPDIR on ext4 or tmpfs shows the difference.`
			}
			if ev.Method != cow.MethodRange {
				return `This filesystem does not tell written zeros from holes reliably, so mnt, too, copied the whole file.
TMPDIR on ext4 or XFS shows the difference.`
			}
		}
		return `In whole the write waited for a copy of 16 MiB. In mnt a sparse file of 16 MiB was made, and only the
block around the byte was copied. The mark overlay.plyfs has on it what it completes; while there is
one, the kernel's overlayfs refuses the upper. Settling copied the rest and removed the mark.`
	},
	rule: `It always copies whole files, at the open for writing, not at the first write; where the filesystem can, by
sharing the blocks (XFS, btrfs).`,
}

var chmodExercise = Exercise{
	Name: "chmod", Title: "chmod copies up a file, and none of its data",
	layers: []layer{{"image", []file{{name: "film", size: 4 << 20}, {name: "tool", text: "#!/bin/sh\necho tool\n"}}}},
	dirs:   single, uppers: singleUpper,
	mount: []string{"plyfs mount --lower image --upper upper --work work --settle-budget off mnt"},
	task: `film has 4 MiB, tool a few bytes. Mode, owner and times are parts of a file, too: to change
them takes a copy in the upper.
1. Change the mode of mnt/film. What is its size in the upper, and what space does it take?
   Can it be read?
2. Change the mode of mnt/tool. What is different?`,
	try: []string{
		"chmod 600 mnt/film; ls -ls upper image",
		"head -n 1 mnt/film",
		"plyfs explain mnt/film",
		"touch -d 2001-01-01 mnt/film; chown 1000 mnt/film      (chown: root only)",
		"chmod 700 mnt/tool; ls -ls upper; plyfs stat mnt",
	},
	question: "The mode of a directory of the image is changed. What of what is in it is copied?",
	answer: `Nothing. A directory in the upper with the new mode is enough: it is merged with the lower one, and the
names in it are still found there. chmod -R, of course, copies up each file.`,
	solution: []step{
		{"The file in the upper has the new mode, the full size, and no data: the 4 KiB that it may take are its attributes (where blocks can be shared, XFS or btrfs, it is a clone, which has all).",
			"chmod 600 mnt/film\nls -ls upper image"},
		{"Its data is read from the image.",
			"head -n 1 mnt/film\nplyfs explain mnt/film"},
		{"Times are no different.",
			"touch -d 2001-01-01 mnt/film\nls -ls upper"},
		{"A small file is just copied: that is cheaper than to come back to it.",
			"chmod 700 mnt/tool\nls -ls upper\nplyfs stat mnt | grep -A 20 '^copied'"},
	},
	goals: []goal{
		{"mnt/film has another mode than in the image", "chmod 600 mnt/film",
			func(s *state) bool {
				return s.exists("upper/film") && s.stat("upper/film").Mode != s.stat("image/film").Mode
			}},
		{"and none of its data was copied for that", "something wrote to it or replaced it; only change its mode, owner or times",
			func(s *state) bool {
				list := s.copied("mnt", "/film", cow.CauseChmod, cow.CauseChown, cow.CauseUtimens)
				return len(list) > 0 && (list[0].BytesCopied == 0 || list[0].Method == cow.MethodClone)
			}},
		{"mnt/tool has another mode, too", "chmod 700 mnt/tool",
			func(s *state) bool {
				return s.exists("upper/tool") && s.stat("upper/tool").Mode != s.stat("image/tool").Mode
			}},
	},
	happened: func(s *state) string {
		for _, ev := range s.copied("mnt", "/film", cow.CauseChmod, cow.CauseChown, cow.CauseUtimens) {
			if ev.Method == cow.MethodClone {
				return `This filesystem can share the blocks of files (a clone), so film was complete at once with nothing copied,
and ls counts the shared blocks. TMPDIR on ext4 or tmpfs shows how it is done without.`
			}
		}
		return `chmod of film made a sparse file with the new mode and a record (the mark overlay.plyfs) that says where the
data is. The mount would copy it when it has nothing to do; this one was told not to (--settle-budget off). From 64 KiB on
that is done for attributes; tool is smaller, and was copied.`
	},
	rule: `It copies all of the data for a chmod. Only with metacopy=on it leaves a file without data and with the mark
overlay.metacopy, until somebody writes to it; plyfs mount -o metacopy=on writes the same.`,
}

var linksExercise = Exercise{
	Name: "links", Title: "one file with three names stays one file",
	layers: []layer{{"image", []file{
		{name: "bin/box", text: "#!/bin/sh\necho box 1.0\n"}, {name: "bin/cat", link: "bin/box"}, {name: "bin/ls", link: "bin/box"}}}},
	dirs: single, uppers: singleUpper,
	mount: []string{"plyfs mount --lower image --upper upper --work work mnt"},
	task: `bin/box, bin/cat and bin/ls are one file with three names (hard links), as busybox has them.
1. Change the file by one name. What do the other two show? How many files are in upper/bin?
2. Unmount, and look at upper/bin again.`,
	try: []string{
		"ls -li mnt/bin",
		"echo '# changed' >> mnt/bin/ls; tail -n 1 mnt/bin/*",
		"ls -li mnt/bin upper/bin work/index",
		"plyfs umount mnt; ls -li upper/bin work/index",
	},
	question: "Which inode number do the three names have before, and after the change?",
	answer: `The same. A copied-up file goes on showing the number of the lower file, and so does each of its names: a
program that compares numbers, as tar and rsync do, still sees one file.`,
	solution: []step{
		{"One inode number, three links.",
			"ls -li mnt/bin"},
		{"Changed by one name, changed by all. It was copied once.",
			"echo '# changed' >> mnt/bin/ls\ntail -q -n 1 mnt/bin/box mnt/bin/cat mnt/bin/ls\nls -li mnt/bin"},
		{"The upper has one of the names. The others find the copy by work/index, where a further link of it has the handle of the lower file as its name.",
			"ls -li upper/bin work/index"},
		{"Who reads the upper without the index would find only one name changed. So the unmount adds the others.",
			"plyfs umount mnt\nls -li upper/bin work/index"},
	},
	goals: []goal{
		{"the file was changed, by writing to it", "echo '# changed' >> mnt/bin/ls",
			func(s *state) bool {
				text := s.text(s.seen("mnt", "upper", "bin/ls"))
				return text != "" && text != s.text("image/bin/ls")
			}},
		{"all three names show the change", "an editor that writes a new file and renames it takes one name away from the others; append with >>",
			func(s *state) bool {
				ls := s.text(s.seen("mnt", "upper", "bin/ls"))
				return ls != "" && ls != s.text("image/bin/ls") &&
					s.text(s.seen("mnt", "upper", "bin/box")) == ls && s.text(s.seen("mnt", "upper", "bin/cat")) == ls
			}},
		{"after the unmount the upper has one file with three names", "plyfs umount mnt",
			func(s *state) bool {
				st := s.stat("upper/bin/ls")
				return st.Nlink == 3 && s.stat("upper/bin/box").Ino == st.Ino && s.stat("upper/bin/cat").Ino == st.Ino
			}},
	},
	happened: says(`One copy-up, under one of the names, and an entry in work/index for the lower inode: whoever comes by
another name finds the copy there. At the unmount the copy got the other two names, and the entry was removed.`),
	rule: `By default it breaks the link: the changed name becomes a file of its own, the others stay as they were. With
index=on it keeps them together by the same index in the work directory.`,
}
