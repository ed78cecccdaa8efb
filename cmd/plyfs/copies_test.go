package main

import (
	"testing"

	"github.com/plyfs/plyfs/cmd/plyfs/mounts"
)

// The number of a device that is free is given to the next filesystem: that is no copy of what was unmounted, wherever it is.
func TestCopiesOfAMount(t *testing.T) {
	at := func(id, device, point, typ string) []mounts.Mount {
		return []mounts.Mount{{ID: "1", Device: "8:1", Point: "/", Type: "ext4"}, {ID: id, Device: device, Point: point, Type: typ}}
	}
	c := &copies{point: "/mnt", device: "0:42", seen: map[string]bool{}, had: map[copyPlace]bool{}}
	c.note("own", true, append(at("30", "0:42", "/mnt", mounts.Plyfs), at("31", "0:42", "/bound", mounts.Plyfs)...))
	c.note("container", false, at("50", "0:42", "/inside", mounts.Plyfs))
	c.note("service", false, at("60", "0:9", "/tmp", "tmpfs"))
	for _, tt := range []struct {
		name, ns string
		table    []mounts.Mount
		want     bool
	}{
		{"bound elsewhere", "own", at("31", "0:42", "/bound", mounts.Plyfs), true},
		{"the next mount here", "own", at("30", "0:42", "/mnt", mounts.Plyfs), false},
		{"the next mount here, elsewhere", "own", at("30", "0:42", "/other", mounts.Plyfs), false},
		{"a container still has it", "container", at("50", "0:42", "/inside", mounts.Plyfs), true},
		{"the container has something else", "container", at("51", "0:42", "/inside", mounts.Plyfs), false},
		{"a tmpfs with the number", "service", at("61", "0:42", "/mnt", "tmpfs"), false},
		{"another plyfs with the number", "service", at("61", "0:42", "/mnt2", mounts.Plyfs), false},
		{"a namespace made meanwhile", "new", at("70", "0:42", "/mnt", mounts.Plyfs), true},
		{"a namespace made later", "new", at("70", "0:42", "/mnt2", mounts.Plyfs), false},
	} {
		if got := c.stays(tt.ns, tt.table); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
