// Package whiteout knows every mark that a union filesystem keeps on disk: what hides
// a name, what makes a directory opaque, where a renamed directory was, what a file was
// copied up from. It turns marks into values and back and does no input or output, so
// that everything it reads can be fuzzed.
//
// The formats are those of the kernel's overlayfs (Documentation/filesystems/overlayfs.rst,
// fs/overlayfs/overlayfs.h), with the older ones of AUFS and fuse-overlayfs read besides.
// Laws that hold for each type with a Parse and an Encode: Parse(Encode(v)) is v, and what
// Parse accepts encodes to something that parses to the same value.
package whiteout
