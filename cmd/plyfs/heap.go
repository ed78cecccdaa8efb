package main

// spareSize is in bytes: about as much as the daemon may hold in garbage more than it would.
const spareSize = 8 << 20

// spareHeap returns what a daemon keeps so that its collector runs less often. It is never touched, and takes no
// memory therefore. The collector runs whenever as much was allocated as there is: with the megabyte or two
// that most mounts remember that would be every few hundred changes of files, each time for some
// milliseconds of a processor, the larger part of them for its sweeper to wait for a worker that the system has
// not given a processor. runtime/debug knows a percentage and a limit, but no least size.
func spareHeap() []byte { return make([]byte, spareSize) }
