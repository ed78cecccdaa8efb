// Package bench measures what copy-up costs: the first change of a file of a lower layer,
// on plyfs in each of its methods and on the filesystems beside it.
//
// A [Case] is one such change. [Run] makes the lower files once, then measures every case
// on every peer in rounds, the peers in turns within a round, each time over a fresh upper.
// For every case it reports apart from each other: how long the first change takes, how
// many bytes reach the upper per byte asked for, the space the upper takes, how often the
// disk was told to flush, and how long somebody who opens another file meanwhile has to wait.
//
// Package rig has the peers and the closed place to run in, package sample the statistics.
package bench
