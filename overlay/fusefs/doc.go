// Package fusefs serves a union through the kernel's FUSE device.
//
// # The model
//
// The union ([Union], in practice *overlay.FS) knows nodes, names and bytes. It
// knows nothing of file handles, caches or the protocol. This package knows
// those and nothing else: it reads requests from /dev/fuse, turns each into one
// call of the union, and writes the answer back. A node id of the protocol is a
// node id of the union.
//
//	program ── system call ──► kernel (VFS, FUSE client: dentry, attribute and page cache)
//	                              │  only what the caches cannot answer
//	                              ▼
//	                          /dev/fuse
//	                              │ read(2)                        ▲ write(2)
//	  device.go    worker threads ┴─► dispatch.go ─► names.go ─────┤
//	                                  (count, find   attr.go       │
//	                                  the node,      data.go ──► Union
//	                                  catch panics)  dir.go
//	                                                 xattr.go, open.go
//
// # Modes
//
// What the kernel may decide by itself is settled once, by [Mode]:
//
//   - [Cached]: OPEN, OPENDIR, FLUSH and ACCESS are answered ENOSYS, so
//     that the kernel never asks them again. Requests carry no handles, I/O is by
//     node, RELEASE does not exist, and entries and attributes stay valid until the
//     timeout (a day, unless told otherwise). Nobody but this mount may change the
//     layers meanwhile.
//   - [Passthrough]: OPEN is answered with a backing file, and the kernel reads and
//     writes that file without us. Root only.
//   - [Shared]: OPEN is answered, nothing is kept over an open, attributes are short
//     lived: for views of trees somebody else changes too.
//
// docs/caching.md says what follows from each for the people who use the mount.
//
// # Threads
//
// Every worker is a goroutine that blocks in read(2) on the device, serves what it
// got to the end, and reads again: a request never changes threads. At least
// one worker always waits in read(2); when the last one is taken, another is
// started before the request is served. Idle workers above a small number end.
// A worker owns its buffers; nothing is shared between two requests but
// counters.
//
// # Locks
//
// The package holds no lock across a call of the union, except two:
//
//	openNode.mu        (open.go; passthrough and shared mode: the open state of one
//	  │                 node; given up while the union finds, or makes, its backing file)
//	  ├─► whatever the union locks
//	  └─► openFiles.mu (the nodes and directories that are open; a leaf)
//
//	openDir.mu         (open.go: one open of a directory that others change, while it is read)
//	  └─► whatever the union locks
//
//	conn.mu            (device.go: the list of workers)
//	  └─► worker.mu    (interrupt.go: closing a cancel channel; a leaf)
//
// Notifications (notify.go) may block in the kernel on an inode that a request
// holds: send them without holding any lock of the union, and from inside a request on
// the same inode only where the kernel's side was looked at (lseek in data.go).
package fusefs
