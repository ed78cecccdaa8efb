package bench

import (
	"slices"

	"github.com/plyfs/plyfs/cow/bench/rig"
)

// special are the peers that take part only in cases that name them.
var special = []string{"cp", "cp-sync", "plyfs-whole-volatile", "plyfs-range", "plyfs-copy"}

// Peers returns everything that can be compared. plyfs is the path of its binary.
func Peers(plyfs string) []*rig.Peer {
	own := func(name string, flags ...string) *rig.Peer {
		return rig.Plyfs(name, plyfs, append(flags, "--no-settle")...)
	}
	return []*rig.Peer{
		rig.Plain(),
		rig.Kernel("kernel"), rig.Kernel("kernel-metacopy", "metacopy=on", "redirect_dir=on"), rig.Kernel("kernel-volatile", "volatile"),
		rig.FuseOverlayfs(), rig.UnionfsFuse(),
		own("plyfs"), own("plyfs-whole", "--threshold", "off"), own("plyfs-metacopy", "-o", "metacopy=on"), own("plyfs-volatile", "-o", "volatile"),

		rig.Copy("cp", false), rig.Copy("cp-sync", true),
		own("plyfs-whole-volatile", "--threshold", "off", "-o", "volatile"),
		own("plyfs-range", "--threshold", "1"), own("plyfs-copy", "--threshold", "1024G"),
	}
}

// takesPart says whether a peer is measured in c.
func (c *Case) takesPart(peer string) bool {
	if len(c.Peers) > 0 {
		return slices.Contains(c.Peers, peer)
	}
	return !slices.Contains(special, peer)
}
