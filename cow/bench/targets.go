package bench

import (
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/plyfs/plyfs/cow/bench/sample"
)

// Verdict is a target and what a run found.
type Verdict struct {
	Target string  `json:"target"`
	Bound  float64 `json:"bound"`
	// AtLeast says that Bound is a lower bound, else it is an upper one.
	AtLeast bool    `json:"at_least,omitempty"`
	Value   float64 `json:"value"` // of medians
	Reached bool    `json:"reached"`
	// Room is how many times better than the bound the value is; below 1 it was missed.
	Room   float64 `json:"room"`
	format func(float64) string
}

// The cases of the targets have groups of their own where the sweep has no such case.
const (
	groupWhole   = "copied whole"
	groupChown   = "chown -R"
	groupBig     = "unrelated open"
	groupApart   = "layers on another filesystem, write 1 byte"
	groupSparse  = "sparse, write 1 byte"
	chownedFiles = 20000
)

// clones are the filesystems on which the kernel's overlayfs shares extents.
var clones = []string{"xfs", "btrfs"}

// targetCases are what the targets are about.
func targetCases(filesystem string) []Case {
	apart := slices.Contains(clones, filesystem)
	one := func(group string, size int64, peers ...string) Case {
		return Case{Group: group, Name: inBytes(size), Size: size, Asked: 1, Peers: peers, change: writeAt(size/2, 1)}
	}
	out := []Case{
		one("write 1 byte", 64*kib, "plyfs", "kernel", "fuse-overlayfs"),
		one("write 1 byte", gib, "plyfs", "kernel"),
	}
	if apart {
		c := one(groupApart, gib, "plyfs", "kernel")
		c.Apart = true
		out = append(out, c)
	}
	for _, size := range []int64{0, gib} {
		out = append(out, Case{Group: "chmod", Name: inBytes(size), Size: size, Peers: []string{"plyfs"}, change: chmod})
	}
	for _, size := range []int64{0, gib} {
		out = append(out, Case{Group: "O_TRUNC", Name: inBytes(size), Size: size, Peers: []string{"plyfs", "kernel"}, change: truncateOpen})
	}
	for _, size := range []int64{mib, 256 * mib} {
		c := one(groupWhole, size, "cp", "cp-sync", "plyfs-whole", "plyfs-whole-volatile")
		c.alone = true
		out = append(out, c)
	}
	big, sparse := one(groupBig, 2*gib, "plyfs-whole", "kernel", "cp-sync"), one(groupSparse, 64*mib, "plyfs", "kernel")
	big.Apart, sparse.sparse = apart, true
	chown := Case{Group: groupChown, Name: fmt.Sprintf("%d files", chownedFiles), Size: 4 * kib, Files: chownedFiles, all: chownTree}
	durable, volatile := chown, chown
	durable.Peers, durable.rounds, durable.settle = []string{"plyfs", "kernel"}, 1, true
	volatile.Peers, volatile.rounds = []string{"plyfs-volatile", "kernel-volatile"}, 3
	volatile.Name += ", volatile"
	return append(out, big, sparse, durable, volatile)
}

// Targets returns the verdicts that a run has measurements for.
func (rep *Report) Targets() []Verdict {
	var out []Verdict
	find := func(group string, size int64, peer string) *Result {
		for _, r := range rep.Results {
			if r.Case.Group == group && r.Case.Size == size && r.Peer == peer && r.Latency.N > 0 {
				return r
			}
		}
		return nil
	}
	add := func(text string, bound float64, atLeast bool, format func(float64) string, value float64) {
		if math.IsNaN(value) {
			return
		}
		v := Verdict{Target: text, Bound: bound, AtLeast: atLeast, Value: value, format: format, Room: bound / value, Reached: value <= bound}
		if atLeast {
			v.Room, v.Reached = value/bound, value >= bound
		}
		out = append(out, v)
	}
	times := func(x float64) string { return sample.FormatRatio(x) + " ×" }
	ratio := func(a, b *Result) float64 {
		if a == nil || b == nil {
			return math.NaN()
		}
		return a.Latency.Ratio(b.Latency)
	}
	add("1 byte to a file of 1 GiB, beside one of 64 KiB", 3, false, times, ratio(find("write 1 byte", gib, "plyfs"), find("write 1 byte", 64*kib, "plyfs")))
	group := "write 1 byte"
	if slices.Contains(clones, rep.Filesystem) {
		group = groupApart // where the kernel cannot share extents
	}
	add("1 byte to a file of 1 GiB, faster than the kernel's overlayfs", 50, true, times, ratio(find(group, gib, "kernel"), find(group, gib, "plyfs")))
	add("chmod of a file of 1 GiB, beside an empty one", 2, false, times, ratio(find("chmod", gib, "plyfs"), find("chmod", 0, "plyfs")))
	add("O_TRUNC of a file of 1 GiB, beside an empty one", 2, false, times, ratio(find("O_TRUNC", gib, "plyfs"), find("O_TRUNC", 0, "plyfs")))
	for _, size := range []int64{mib, 256 * mib} {
		add(inBytes(size)+" copied whole, volatile, beside cp --reflink=auto", 1, false, times, ratio(find(groupWhole, size, "plyfs-whole-volatile"), find(groupWhole, size, "cp")))
		add(inBytes(size)+" copied whole, beside cp --reflink=auto and fsync", 1, false, times, ratio(find(groupWhole, size, "plyfs-whole"), find(groupWhole, size, "cp-sync")))
	}
	add("chown -R of 20,000 files, beside the kernel's overlayfs", 1, false, times, ratio(find(groupChown, 4*kib, "plyfs"), find(groupChown, 4*kib, "kernel")))
	add("the same, both volatile", 1, false, times, ratio(find(groupChown, 4*kib, "plyfs-volatile"), find(groupChown, 4*kib, "kernel-volatile")))
	if r := find(groupBig, 2*gib, "plyfs-whole"); r != nil && r.Collateral.N > 0 {
		add("opening and reading another file while 2 GiB are copied, 99 of 100", 5e6, false, sample.FormatDuration, r.Usual.Median)
		add("the same, longest", 5e6, false, sample.FormatDuration, r.Collateral.Median)
	}
	if r := find(groupSparse, 64*mib, "plyfs"); r != nil {
		add("space of a sparse file of 64 MiB with 1 byte written", mib, false, sample.FormatBytes, r.Upper.Median)
	}
	return out
}

// WriteTargets prints the verdicts, if there are any.
func (rep *Report) WriteTargets(w io.Writer) error {
	all := rep.Targets()
	if len(all) == 0 {
		return nil
	}
	t := sample.NewTable("target", "promised", "measured", "")
	for _, v := range all {
		sign, room := "≤ ", "reached, "+sample.FormatRatio(v.Room)+" times better"
		if v.AtLeast {
			sign = "≥ "
		}
		if !v.Reached {
			room = "MISSED by a factor of " + sample.FormatRatio(1/v.Room)
		}
		t.Row(v.Target, sign+v.format(v.Bound), v.format(v.Value), room)
	}
	return t.Write(w)
}
