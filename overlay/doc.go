// Package overlay is the union itself: a stack of read-only layers and one writable layer on
// top, seen as one tree. It knows nothing of FUSE: [FS] is a library whose operations
// are those of a filesystem, on nodes instead of paths, and overlay/fusefs hands them to the kernel.
//
// # Model
//
// A [Node] is one inode of the view. A directory node knows the directories of the layers that
// merge in it, topmost first, and no other layer: what a name costs to look up depends
// on how many layers have its directory, not on how many there are. Any other node is one object
// of one layer, and all names of a hard-linked inode share one node. Nodes live while the kernel, or
// a node below them, refers to them.
//
// The rules by which a name is found are in lookup.go: the topmost layer that has it wins; a whiteout
// ends the search; directories merge until one is opaque; a redirect says under which
// name the search goes on further down. All marks are the kernel's, see package whiteout.
//
// A change goes to the upper. What is not there is copied up first (copyup.go, by package cow),
// with its parent directories, and keeps its inode number. What is removed leaves a whiteout where
// a lower layer would show through. Whatever takes more than one step is built in the work
// directory and renamed into place, so that a crash leaves the old state or the new one.
//
// # Locks
//
// In the order in which they may nest. Nothing but a node's own lock is held while data is copied,
// and that not while the bytes move: others who need the same file wait for its flight.
//
//	FS.renames                (everything that changes which directory is where)
//	  └─► directory.names     (the names of one directory: writers change them, lookups read;
//	        │                  of two, the ancestor first, else that of the old name)
//	        ├─► directory.building   (the list of names is being read)
//	        ├─► nameIndex.mu   (a leaf: that list by name is being made)
//	        ├─► indexes.mu     (a leaf: which directories have such a list)
//	        ├─► whiteouts.mu   (the whiteout that others are links of)
//	        └─► Node.mu       (where the object is; of two, the lower number first)
//	              ├─► table.mu       (a leaf: nodes by number, children, references)
//	              ├─► files.mu       (a leaf: cached descriptors)
//	              └─► layer's locks  (see package layer)
//
//	flights.mu                (a leaf: copy-ups under way)
//	settling.mu               (a leaf: how far completing files has come)
//
// A copy-up begins with no lock held: it joins or opens a flight, makes the parents exist, stages the
// copy, and only then takes Node.mu to give it its name. If the node was renamed meanwhile it
// begins anew.
package overlay
