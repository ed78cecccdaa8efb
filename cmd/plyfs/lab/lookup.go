package lab

// Which layer a name comes from, and the marks that take names away.

const mountSystem = "plyfs mount --lower app --lower runtime --lower base --upper upper --work work mnt"

var layersExercise = Exercise{
	Name: "layers", Title: "which layer does a file come from",
	layers: system, dirs: single, uppers: singleUpper,
	mount: []string{mountSystem},
	task: `Three layers are mounted on mnt: app on top, then runtime, then base.
1. Which layer do etc/motd, etc/hosts and usr/lib/runtime.conf come from? Look into the
   layers first, then ask plyfs. Write a line for each into the file answers: NAME LAYER.
2. Change etc/motd through mnt, and ask again.`,
	try: []string{
		"ls app/etc runtime/etc base/etc",
		"plyfs explain mnt/etc/motd",
		"echo 'etc/motd LAYER' >> answers",
		"plyfs tree mnt",
	},
	question: "After the change etc/motd exists four times. Which are read when somebody opens mnt/etc/motd?",
	answer: `Only the one in the upper. For a file the topmost layer that has the name wins, and layers below
are not even looked at. Only directories are merged.`,
	solution: []step{
		{"etc/motd is in all three layers, etc/hosts only in base, runtime.conf only in runtime.",
			"find app runtime base -name motd -o -name hosts -o -name runtime.conf"},
		{"The line with 'provides' names the layer.",
			"plyfs explain mnt/etc/motd mnt/etc/hosts mnt/usr/lib/runtime.conf\n" +
				"echo 'etc/motd app' >> answers\necho 'etc/hosts base' >> answers\necho 'usr/lib/runtime.conf runtime' >> answers"},
		{"A change copies the file up. From then on the upper provides it.",
			"echo changed >> mnt/etc/motd\ncat mnt/etc/motd\ncat app/etc/motd\nplyfs explain mnt/etc/motd"},
	},
	goals: []goal{
		{"the layer of etc/motd is in answers", "app is above the others; the line is: etc/motd LAYER",
			func(s *state) bool { return s.answered("answers", "etc/motd", "app") }},
		{"the layer of etc/hosts is in answers", "plyfs explain mnt/etc/hosts, the line with 'provides'",
			func(s *state) bool { return s.answered("answers", "etc/hosts", "base") }},
		{"the layer of usr/lib/runtime.conf is in answers", "plyfs explain mnt/usr/lib/runtime.conf, the line with 'provides'",
			func(s *state) bool { return s.answered("answers", "usr/lib/runtime.conf", "runtime") }},
		{"the upper provides etc/motd", "echo changed >> mnt/etc/motd",
			func(s *state) bool { return s.isFile("upper/etc/motd") }},
	},
	happened: says(`Looking changed nothing. The first write copied etc/motd from app to the upper, and its directory etc
before it, since a file needs one to be in. The mark origin is a handle of the file it was copied from:
it lets the file keep its inode number.`),
	rule: `The same. lowerdir=app:runtime:base names the topmost first; a lookup goes down from the upper and ends at
the first layer that has the name as anything but a directory.`,
}

var whiteoutExercise = Exercise{
	Name: "whiteout", Title: "delete a file that only a lower layer has",
	layers: system, dirs: single, uppers: singleUpper,
	mount: []string{mountSystem},
	task: `etc/hosts is in base, which nobody may change. Still it can be deleted.
1. Delete mnt/etc/hosts. Is it in base? Find what in the upper says that it is gone.
2. Delete mnt/srv/app.conf, and make it again with other content. What became of the mark?`,
	try: []string{
		"rm mnt/etc/hosts",
		"ls -l base/etc upper/etc",
		"plyfs explain mnt/etc/hosts",
		"rm mnt/srv/app.conf; ls -l upper/srv",
		"echo 'port = 1' > mnt/srv/app.conf; ls -l upper/srv",
	},
	question: "echo > mnt/new; rm mnt/new: does that leave a mark in the upper?",
	answer: `No. A whiteout is needed only to hide a name of a layer below. No lower layer has new, so it
is just removed.`,
	solution: []step{
		{"The view has etc/hosts no more, base has it still.",
			"rm mnt/etc/hosts\nls mnt/etc\ncat base/etc/hosts"},
		{"The upper says so: the 'c' is a character device with the number 0, 0. No driver has that number, and in a layer it is a whiteout.",
			"ls -l upper/etc\nplyfs explain mnt/etc/hosts\n! cat mnt/etc/hosts"},
		{"A new file of that name takes the place of its whiteout.",
			"rm mnt/srv/app.conf\nls -l upper/srv\necho 'port = 1' > mnt/srv/app.conf\nls -l upper/srv\nplyfs diff mnt"},
	},
	goals: []goal{
		{"the view has etc/hosts no more", "rm mnt/etc/hosts, through the mount",
			func(s *state) bool { return s.isGone("mnt/etc", "hosts") }},
		{"the upper has a whiteout for it", "rm mnt/etc/hosts, and do not make it again",
			func(s *state) bool { return s.isWhiteout("upper/etc/hosts") }},
		{"srv/app.conf has other content, in the upper", "echo 'port = 1' > mnt/srv/app.conf",
			func(s *state) bool {
				return s.isFile("upper/srv/app.conf") && s.text("upper/srv/app.conf") != s.text("app/srv/app.conf")
			}},
	},
	happened: says(`Nothing of a deleted file is copied: only its directory, to have a place for the whiteout. A listing of
the view leaves out the whiteout and every lower file of its name. The app layer has one, too, made when the image
was built: app/opt/trial.txt. A file that is made over a whiteout is a new one: it was copied from nowhere,
and has no origin.`),
	rule: `The same mark: a character device 0:0, or an empty file with the attribute overlay.whiteout. AUFS, and the layers
of container images in their archives, write an empty file .wh.NAME instead.`,
}

var opaqueExercise = Exercise{
	Name: "opaque", Title: "replace a directory that several layers have",
	layers: system, dirs: single, uppers: singleUpper,
	mount: []string{mountSystem},
	task: `etc is merged from three layers. Replace it: afterwards mnt/etc is a directory with nothing
in it but a file of your own, fresh.
Remove the directory itself and make it again. Then find the one mark that hides all of the
lower files.`,
	try: []string{
		"plyfs explain mnt/etc",
		"rm -r mnt/etc; ls -l upper",
		"mkdir mnt/etc; echo new > mnt/etc/fresh",
		"ls -lA upper/etc; plyfs explain mnt/etc",
		"getfattr -d -m - upper/etc          (package attr; as root or as the owner)",
	},
	question: "How many whiteouts are in upper/etc, and why?",
	answer: `None. An opaque directory is not merged with those below it, so there is no name to hide. The whiteouts that
rm -r made for each file went with the directory.`,
	solution: []step{
		{"etc is merged. So is its listing.",
			"plyfs explain mnt/etc\nls mnt/etc"},
		{"Removed, it is one whiteout, whatever was in it.",
			"rm -r mnt/etc\nls -l upper"},
		{"Made again it takes the place of the whiteout, and has to hide the same: it is opaque.",
			"mkdir mnt/etc\necho new > mnt/etc/fresh\nls -A mnt/etc upper/etc\nplyfs explain mnt/etc\nplyfs explain mnt/etc/hosts"},
		{"An image can have such a directory too: runtime/var/cache.",
			"ls base/var/cache\nls mnt/var/cache\nplyfs check upper runtime"},
	},
	goals: []goal{
		{"mnt/etc has fresh, and no file of the layers", "rm -r mnt/etc, mkdir mnt/etc, echo new > mnt/etc/fresh",
			func(s *state) bool {
				return s.isFile("mnt/etc/fresh") && s.isGone("mnt/etc", "hosts") && s.isGone("mnt/etc", "motd")
			}},
		{"upper/etc is opaque", "who deletes the files one by one makes a whiteout for each; remove the directory itself",
			func(s *state) bool { return s.isOpaque("upper/etc") }},
	},
	happened: says(`rm -r first copied etc up as a place for whiteouts, one for each file; with the directory they went,
and a single whiteout for etc was left. mkdir put an opaque directory in its place.`),
	rule: `The same mark: overlay.opaque=y on the directory, in trusted. or, mounted with userxattr, in user. AUFS and image
archives write a file .wh..wh..opq into it.`,
}
