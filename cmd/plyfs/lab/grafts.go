package lab

// What is mounted inside a view, and hides what the layers have there.

const mountImage = "plyfs mount --lower image --upper upper --work work"

var bindExercise = Exercise{
	Name: "bind", Title: "a bound directory hides the image's, a bound file only one name",
	layers: []layer{{"image", []file{
		{name: "data/list", text: "from the image\n"}, {name: "data/readme", text: "how to use data\n"},
		{name: "etc/app/app.conf", text: "port = 8080\n"}, {name: "etc/app/users", text: "root\n"}}}},
	outside: []layer{{"host", []file{
		{name: "data/list", text: "from the host\n"}, {name: "app.conf", text: "port = 9090\n"}}}},
	dirs: single, uppers: singleUpper,
	mount: []string{mountImage + " --bind host/data:/data --bind host/app.conf:/etc/app/app.conf mnt"},
	task: `An image is mounted with two binds: the directory host/data over data, the file
host/app.conf over etc/app/app.conf.
1. Compare mnt/data and mnt/etc/app with the image. What is hidden?
2. Write mnt/data/note, and append to mnt/etc/app/users. Where did each go: host, or upper?
3. Unmount, and mount again without the binds. What of data was lost?`,
	try: []string{
		"ls mnt/data image/data; plyfs explain mnt/data mnt/data/readme",
		"ls mnt/etc/app; plyfs tree mnt",
		"echo hello > mnt/data/note; echo me >> mnt/etc/app/users; find host upper -type f",
		"plyfs umount mnt",
		mountImage + " mnt",
	},
	question: "The image has data/readme. Why is it not in mnt/data while host/data is bound, though the layers' directories are merged?",
	answer: `A bind is no layer. It is a mount: the directory that is mounted takes the place of the one beneath, whole, until it is
unmounted. Layers are merged; mounts hide.`,
	solution: []step{
		{"The bound directory hides all of the image's data, the bound file only the one name: users is still there.",
			"ls image/data mnt/data\nls mnt/etc/app\ncat mnt/etc/app/app.conf mnt/etc/app/users"},
		{"explain names what is hidden.",
			"plyfs explain mnt/data\nplyfs explain mnt/data/readme\nplyfs tree mnt"},
		{"What is written to a bound directory is the host's at once, and never in the upper. The file beside the bound one is the image's: it is copied up.",
			"echo hello > mnt/data/note\necho me >> mnt/etc/app/users\nfind host upper -type f\nplyfs diff mnt"},
		{"Without the binds everything that was hidden is there again.",
			"plyfs umount mnt\n" + mountImage + " mnt\nls mnt/data\ncat mnt/data/list mnt/etc/app/app.conf"},
	},
	goals: []goal{
		{"data/note is on the host, and not in the upper", "echo hello > mnt/data/note, while host/data is bound",
			func(s *state) bool { return s.isFile("host/data/note") && !s.exists("upper/data/note") }},
		{"etc/app/users is changed, in the upper", "echo me >> mnt/etc/app/users",
			func(s *state) bool {
				return s.isFile("upper/etc/app/users") && s.text("upper/etc/app/users") != s.text("image/etc/app/users")
			}},
		{"mnt shows the image's data again", "plyfs umount mnt; " + mountImage + " mnt",
			func(s *state) bool {
				return s.mounted("mnt") != "" && s.text("mnt/data/list") == "from the image\n" && s.isFile("mnt/data/readme")
			}},
	},
	happened: says(`While host/data was bound, nothing that was done in mnt/data reached a layer: no copy-up, no mark. users, which is beside
the bound file, was copied up as any file. The image's data was never touched; it was only out of sight.`),
	rule: `It has no binds of its own: a container's are mounts of the kernel (mount --bind) on top of the overlay, with the same
rule: what is mounted hides what is beneath. plyfs serves them itself, so that no privileges are needed.`,
}

var hideExercise = Exercise{
	Name: "hide", Title: "hide the image's own data behind an empty place",
	layers: []layer{{"image", []file{
		{name: "data/list", text: "from the image\n"}, {name: "data/secret", text: "a sample of the image's makers\n"}}}},
	dirs: single, uppers: singleUpper,
	mount: []string{mountImage + " --tmpfs /data mnt"},
	task: `An image comes with data of its own. It was mounted with an empty place in memory (tmpfs)
over data.
1. Look into mnt/data, and have plyfs explain it. Keep what it says in the file seen:
   plyfs explain mnt/data > seen
2. Write mnt/data/scratch. Is it in the upper?
3. Unmount, mount again without the tmpfs, and look for the image's data and for scratch.`,
	try: []string{
		"ls -A mnt/data image/data",
		"plyfs explain mnt/data | tee seen; plyfs explain mnt/data/secret",
		"echo x > mnt/data/scratch; find upper; plyfs diff mnt",
		"plyfs umount mnt; " + mountImage + " mnt",
		"ls mnt/data",
	},
	question: "rm -r mnt/data, with no tmpfs over it, makes it empty too. What is the difference?",
	answer: `That is a change: a whiteout in the upper, for this container and for every image that is made from it (commit). The
tmpfs changes nothing: the data is back with the next mount. Neither makes the image smaller: the layer below still has it.`,
	solution: []step{
		{"The place is empty. The image's data is hidden, not deleted.",
			"ls -A mnt/data\nls image/data\nplyfs explain mnt/data | tee seen\nplyfs explain mnt/data/secret"},
		{"What is written there is in memory. The upper hears nothing of it.",
			"echo x > mnt/data/scratch\nls mnt/data\nfind upper\nplyfs diff mnt"},
		{"Without the tmpfs the data is there again, and scratch is gone for good.",
			"plyfs umount mnt\n" + mountImage + " mnt\nls mnt/data\ncat mnt/data/list"},
	},
	goals: []goal{
		{"what hid the data is in seen", "plyfs explain mnt/data > seen, while the tmpfs is over it",
			func(s *state) bool { return contains(s.text("seen"), "tmpfs", "hidden directory") }},
		{"mnt shows the image's data again", "plyfs umount mnt; " + mountImage + " mnt",
			func(s *state) bool {
				return s.mounted("mnt") != "" && s.text("mnt/data/list") == "from the image\n" && s.isFile("mnt/data/secret")
			}},
		{"nothing of data is in the upper", "it was written while no tmpfs was over it: begin again",
			func(s *state) bool {
				return s.mounted("mnt") != "" && s.exists("mnt/data/secret") && !s.exists("upper/data")
			}},
	},
	happened: says(`The tmpfs was over data, so nobody could reach the image's files by that path, and nothing that was
written there came near a layer; it went with the mount. So a container can be kept from the image's own data without
making another image.`),
	rule: `The same is mount -t tmpfs over a directory of the overlay (docker run --tmpfs). What is beneath stays as it is,
unreachable until the tmpfs is unmounted.`,
}

var volumeExercise = Exercise{
	Name: "volume", Title: "a volume is shared, and outlives its containers",
	layers: []layer{{"image", []file{{name: "data/list", text: "from the image\n"}, {name: "bin/tool", text: "#!/bin/sh\n"}}}},
	dirs:   []string{"upper-one", "work-one", "one", "upper-two", "work-two", "two"},
	uppers: []string{"upper-one", "upper-two"},
	prepare: []string{
		"plyfs volume create shared",
	},
	mount: []string{mountOne},
	task: `A volume called shared was made, and is over data in the container one.
1. Who put list into it? Append a line to one/data/list.
2. Mount a second container, two, with the same volume. Does it see the line?
3. Do away with one: unmount it and remove upper-one. What is left of the data?`,
	try: []string{
		"cat one/data/list; plyfs explain one/data",
		"echo milk >> one/data/list",
		mountTwo,
		"cat two/data/list; plyfs volume inspect shared",
		"plyfs umount one; rm -r upper-one; cat two/data/list",
	},
	question: "A new version of the image has another data/list. Does a container of it, with the volume, see that one?",
	answer: `No. A volume is filled from the image once, when it is new and empty. From then on its content is its own, and it
hides what any image has at that place.`,
	solution: []step{
		{"A new volume is filled from the directory it is mounted over.",
			"cat one/data/list\nplyfs explain one/data"},
		{"Two containers with the same volume see the same files, at once.",
			"echo milk >> one/data/list\n" + mountTwo + "\ncat two/data/list\necho bread >> two/data/list\ncat one/data/list"},
		{"The container goes, with its upper; the volume stays.",
			"find upper-one upper-two\nplyfs umount one\nrm -r upper-one\ncat two/data/list"},
		{"The image has what it had.",
			"cat image/data/list"},
	},
	goals: []goal{
		{"the volume's list is longer than the image's", "echo milk >> one/data/list",
			func(s *state) bool {
				return s.mounted("two") != "" && contains(s.text("two/data/list"), "from the image\n") && s.text("two/data/list") != "from the image\n"
			}},
		{"two is mounted with the volume", mountTwo,
			func(s *state) bool {
				return s.mounted("two") != "" && s.stat("two/data/list").Size == s.stat("store/volumes/shared/data/list").Size
			}},
		{"one is gone, with its upper", "plyfs umount one; rm -r upper-one",
			func(s *state) bool { return s.mounted("one") == "" && !s.exists("upper-one") }},
		{"no upper has anything of data", "it was written without the volume: begin again",
			func(s *state) bool { return s.mounted("two") != "" && !s.exists("upper-two/data") }},
	},
	happened: says(`The volume is a directory with a name, store/volumes/shared/data here, that is mounted over data in each container. It was
filled from the image at the first mount, and all writes went there: no copy-up, and nothing in the uppers.`),
	rule: `It knows nothing of volumes. A container engine keeps the directory, fills it, and mounts it (mount --bind) over the
overlay's.`,
}

const (
	mountOne = "plyfs mount --lower image --upper upper-one --work work-one --volume shared:/data one"
	mountTwo = "plyfs mount --lower image --upper upper-two --work work-two --volume shared:/data two"
)
