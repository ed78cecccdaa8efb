package lab

var renameExercise = Exercise{
	Name: "rename", Title: "rename a lower directory without copying what is in it",
	layers: []layer{{"image", []file{
		{name: "srv/site/index.html", text: "<h1>Hello</h1>\n"},
		{name: "srv/site/style.css", text: "h1 { color: blue }\n"},
		{name: "srv/site/img/photo", size: 4 << 20}}}},
	dirs: single, uppers: singleUpper,
	mount: []string{"plyfs mount --lower image --upper upper --work work mnt"},
	task: `srv/site is a directory of the image, with 4 MiB in it.
1. Rename it to srv/archive, through mnt. What is in the upper now, and what was copied?
2. Change srv/archive/index.html. Where is the changed file?
Leave it mounted.`,
	try: []string{
		"mv mnt/srv/site mnt/srv/archive; find upper -ls",
		"plyfs explain mnt/srv/archive mnt/srv/archive/style.css mnt/srv/site",
		"echo changed >> mnt/srv/archive/index.html; find upper -ls",
	},
	question: "upper/srv/archive did not exist in any layer. How does the view know what is in it?",
	answer: `By the mark overlay.redirect: "in the layers below, this directory is called site". The renamed directory is
merged with the one of its old name.`,
	solution: []step{
		{"An empty directory under the new name, and a whiteout under the old one: all that a rename takes.",
			"mv mnt/srv/site mnt/srv/archive\nfind upper\nls -l upper/srv\nls -R mnt/srv"},
		{"The redirect says where the lower part is.",
			"plyfs explain mnt/srv/archive\nplyfs explain mnt/srv/archive/style.css\nplyfs explain mnt/srv/site"},
		{"What changes in it is copied up under the new name.",
			"echo changed >> mnt/srv/archive/index.html\nfind upper\nplyfs diff mnt"},
	},
	goals: []goal{
		{"mnt/srv/archive has what was in srv/site", "mv mnt/srv/site mnt/srv/archive",
			func(s *state) bool {
				return s.exists("mnt/srv/archive/img/photo") && s.text("mnt/srv/archive/style.css") == s.text("image/srv/site/style.css")
			}},
		{"upper/srv/archive has a redirect", "mv does it, cp -r does not; and the mount must be there still",
			func(s *state) bool { _, ok := s.mark("upper/srv/archive", "redirect"); return ok }},
		{"the old name is a whiteout", "mv mnt/srv/site mnt/srv/archive, and leave the old name free",
			func(s *state) bool { return s.isWhiteout("upper/srv/site") }},
		{"srv/archive/index.html is changed", "echo changed >> mnt/srv/archive/index.html",
			func(s *state) bool {
				text := s.text("mnt/srv/archive/index.html")
				return text != "" && text != s.text("image/srv/site/index.html")
			}},
	},
	happened: func(s *state) string {
		text := `The rename copied two directories up, which have no data, and none of the files in them. The one that was
changed was copied when it was changed.`
		if isRoot() {
			return text
		}
		return text + ` You are not root, so the mark is a user. attribute, and the kernel follows no
redirect of that kind. So an unmount would copy what the directory shows, and make it opaque.`
	},
	rule: `With redirect_dir=on it does the same. Without it a rename of a lower directory fails with EXDEV, and mv falls back to
copying everything and deleting the original.`,
}
