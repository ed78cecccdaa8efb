// Package cow is the copy-up engine: it makes, for one object of a read-only
// layer, the object that takes its place in the upper layer.
//
// # Model
//
// A copy-up has two halves. [Engine.Stage] builds a complete object under a
// private name in the work directory: its data (or the promise of it), its
// extended attributes, owner, mode and times. [Staged.Commit] then gives it its
// place with one rename or link. A crash before the rename leaves the old state
// and a stale name that [Engine.CleanWork] removes; a crash after it leaves the
// new state. There is nothing in between.
//
// What a copy-up costs depends on how much of the data it has to move, so data
// is moved by the cheapest [Method] that serves the [Cause]:
//
//	none        the new file keeps no byte of the old one (O_TRUNC)
//	clone       FICLONE: the two files share their extents
//	copy_range  copy_file_range(2), segment by segment
//	loop        pread and pwrite, segment by segment; holes stay holes
//	meta        attributes only, in the kernel's format (metacopy=on)
//	range       attributes only; the blocks that a writer touches come later
//
// The last one leaves an unfinished file, see [Partial]: sparse, of full size,
// with a record ([Record]) of the lower file it completes and of the length
// below which a hole of it means "look there". The upper filesystem's own map of
// holes says which blocks are present; [Engine.Block] finds out whether that map
// can be relied on. The record is an extended attribute in the overlay namespace,
// so that the kernel's overlayfs hides it, and while one unfinished file exists the
// work directory carries an incompat mark that makes the kernel refuse the upper
// (see unfinished.go). [Engine.Settle] completes files and removes the mark.
//
// A small file that is copied keeps a record too, instead of being synced before
// it gets its name: a crash before its blocks are on the disk leaves holes, and the
// lower shows through them. Settle syncs many such files at once.
//
// # What a crash leaves
//
//   - A block becomes present by one write of the whole block. Not yet written
//     back it is a hole again: the lower's bytes, as before.
//   - The record's length comes down before the file is cut, with a flag by which
//     the next open finishes the cut.
//   - The record goes after the data is on disk.
//   - The mark is on disk before the name of the first unfinished file is (see
//     marksync.go), and goes after the last record.
//
// # Rules
//
//   - An object being staged is readable by its owner only, and that owner is
//     this process: contents, then owner, then extended attributes, then mode,
//     then times. No set-id bit is ever seen with the wrong owner.
//   - What the upper cannot hold is either reported (a lost file capability), or
//     the copy-up is refused (an ACL, an owner): a copy never grants more than
//     the original did.
//   - A signal to the caller closes [Want.Cancel]. Everything that can take long
//     looks at it between chunks and ends with EINTR, leaving nothing behind.
//
// # Locks
//
// The engine holds no lock while it copies data; callers serialise copy-ups of
// one object (the union does so per node) and run those of different objects in
// parallel. Inside, in the order in which they may nest:
//
//	Engine.settling          (one Settle at a time)
//	  Partial.completing     (one completer of a file; a batch of Settle holds many)
//	    Partial.ranges       (blocks of one file: writers and the completer; never readers)
//	      Partial.attr       (record and times of one file; a write holds it shared)
//	        Partial.loading  (a section of the block map is being learned)
//	        Partial.lowMu    (the lower file is being opened; calls Config.Resolve)
//	        Engine.steady    (attributes of one upper file, for one system call or a block)
//	  Engine.open            (table of open partial files)
//	  Engine.list.mu         (the mark and the list of unfinished files)
//	  Bus.mu                 (subscribers)
//
// Partial.present, the map of blocks known to be in the upper, is read and changed
// with atomic operations only: that is why readers wait for nobody.
package cow
