// Package mountopt understands the words after -o: those of the kernel's
// overlayfs, of fuse-overlayfs, of libfuse, of mount(8), and plyfs's own.
//
// # The model
//
// A list of options is text with two layers of punctuation, and both are undone
// here, once:
//
//	lowerdir=/a\:b:/c\,d,upperdir=/u,ro
//	         │           │           └─ commas separate options            Split
//	         └───────────┴─ colons separate directories inside lowerdir    SplitDirs
//
// A backslash takes the meaning from the character after it, as in
// ovl_next_opt and ovl_unescape of the kernel's fs/overlayfs/params.c. What
// is left are plain paths.
//
// Every option is a row of one table (table.go), of one of three kinds. Used: it
// changes [Options]. Harmless: whoever asked for it has what it promises
// already, so it is accepted silently. Refused: it would change what the mount
// does, and plyfs does not do that; the error names it and says why. A word that
// is in no row is an error too: nothing is silently ignored.
//
// The package looks at no file: whether the directories exist, and whether they
// get into each other's way, is the union's business.
package mountopt
