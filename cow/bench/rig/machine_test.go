package rig

import "testing"

func TestVersionLine(t *testing.T) {
	for answer, want := range map[string]string{
		"unknown argument ignored: lazytime\nfusermount3 version: 3.14.0\nfuse-overlayfs: version 1.10\nFUSE library version 3.14.0\n": "fuse-overlayfs: version 1.10",
		"unionfs-fuse version: 2.2\nFUSE library version: 2.9.9\n":                                                                     "unionfs-fuse version: 2.2",
		"plyfs version (devel) (go1.26, linux/amd64)\n":                                                                                "plyfs version (devel) (go1.26, linux/amd64)",
		"3.14\n": "3.14",
		"":       "",
	} {
		if got := versionLine(answer); got != want {
			t.Errorf("%q: %q, want %q", answer, got, want)
		}
	}
}
