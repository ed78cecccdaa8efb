// Package layer opens the trees a union is built from, and is the one funnel through
// which they are reached.
//
// # The model
//
// A [Tree] is one directory tree, opened once. A [Dir] is one directory in it, which
// has a descriptor while it is used and for a while after. Every operation takes a
// directory's descriptor and one name in it, never a path, and follows no symbolic link: a
// layer's links are data, and a hostile layer leads nowhere. With an empty name an
// operation means the object of the descriptor itself, which may be open with O_PATH only.
// Errors are plain errnos: the caller knows the path in the view, this package does not.
//
// # Locks
//
//	Dir.Leaving  (nobody closes what was removed from a directory while that is being removed)
//	  │
//	Cache.tree   (held for reading while a directory is opened by way of its parents, for
//	  │           writing while one is renamed: Cache.Rename)
//	  └─► Dir.open (one opener per directory)
//	        └─► Cache.mu (the list of descriptors that may be closed; a leaf)
//
// A directory whose descriptor is open is pinned and unpinned without a lock.
package layer
