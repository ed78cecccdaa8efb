// Package rig holds what a comparison of filesystems needs besides the
// workloads: a place to run in that leaves nothing behind, the filesystems to
// compare, loop images, and what can be read about a mount from outside.
//
// # The cell
//
// A benchmark mounts a lot and starts daemons that outlive a crash of their
// parent. [Enter] therefore runs the program once more in mount and process
// namespaces of its own. Three processes of one program take part:
//
//	outer   makes the scratch directory, waits, removes it
//	 init   process 1 inside: mounts /proc, reaps whatever daemons leave
//	  inner the benchmark itself
//
// When the inner process ends, in whatever way, init ends, and with it the kernel
// kills every daemon and takes away every mount. A killed outer process
// takes init along; only its scratch directory remains, which the next
// run finds unlocked and removes. Without root a user namespace is added, with the
// user's subordinate ids if there are any, in which everything works except loop images
// and dropping caches.
//
// # Peers
//
// A [Peer] mounts a [Stack]. Each answers for its own availability, so that a
// comparison says why a column is missing.
package rig
