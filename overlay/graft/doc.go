// Package graft puts further trees into the view of a union: directories and files of
// the host, volumes, and empty places in memory.
//
// # The model
//
// A [Union] is a union as package fusefs serves it: an overlay, and trees grafted into it.
// Its nodes ([Node]) are of three kinds:
//
//	overlay     *overlay.Node, with its own number; served by *overlay.FS as ever
//	live        an inode of a source: what the host has there, now. The host and other
//	            mounts change it too, so that nothing is remembered of it
//	synthetic   a directory that exists only because something is grafted beneath it
//
// A graft point is a name in a directory: (parent node, name). A lookup that meets one
// goes on at the root of the graft; what the parent has under the name is out of reach, and
// untouched. As the key is a node and not a path, a graft moves along when a directory above it is
// renamed, as mounts of the kernel do. The points are fixed when New returns.
//
//	/            overlay
//	├── etc      overlay
//	│   └── app.conf ──point──► file of the host     (live)
//	└── srv      ──point──► synthetic                (the image has no /srv)
//	    └── data ──point──► directory of the host    (live)
//
// Requests by name look at the points first, and then go to the tree the parent is of. What
// involves two trees is EXDEV, what would remove or replace a point EBUSY.
//
// # Sources
//
// A source is reached by descriptors and names, through package layer, and no link is ever
// followed: links are the view's business. A live node keeps an O_PATH descriptor; when there
// are too many, the oldest are closed and opened again by way of the parent, and the
// inode must then be the same. When the source itself went away (its server ended, its
// filesystem was unmounted), the root is opened again by its path, and all nodes but
// the root are new ones.
//
// # Locks
//
//	synth.mu     (a synthetic directory is being made real)
//	  └─► whatever the tree of its parent locks
//
//	source.mu    (the root is opened again)
//	inode.opening (one opener of a node's descriptor; child before parent)
//	  └─► table.mu
//
//	inode.mu     (descriptors of an open file; held while one is opened)
//	  ├─► source.mu
//	  └─► inode.opening
//
//	fileLocks.mu (POSIX and BSD locks of one file; held while it is opened for a new owner, and while the
//	  │           system call tries)
//	  ├─► inode.mu
//	  ├─► source.mu
//	  └─► inode.opening
//
//	lockTable.mu (which files have locks; a leaf)
//	Union.devMu  (numbers of the filesystems; a leaf)
//
//	table.mu     (nodes, places, references, the list of descriptors; a leaf)
package graft
