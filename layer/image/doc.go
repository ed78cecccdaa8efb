// Package image turns container images into layers on disk and back.
//
// # In
//
// [Open] finds out what it was given (an OCI image layout or a docker save archive, as a directory or
// as a tar file, a plain root filesystem) and [Pull] asks a registry. Both give an
// [Image]: a configuration and, for each layer, a stream. Whatever is read is checked against its
// digest, and the layer's archive once more against its diff id, before anybody sees it.
//
// [Unpack] makes a directory of one layer's archive, in the form of the kernel's
// overlayfs: the archive's .wh. files become whiteouts and opaque directories. Nothing in the
// archive is trusted. Names are taken relative to the layer; every object is reached from the
// layer's root by descriptor, with openat2(RESOLVE_IN_ROOT), so that ".." and symbolic links end
// there; what can only be a trick (a whiteout as a raw device, marks of overlayfs as
// attributes, the same file twice) is refused or made harmless. Memory does not grow with the archive.
//
// # Out
//
// While unpacking, a recipe is written ([Rebuild]): the archive without the contents of
// its files. Recipe and directory give the archive back bit for bit, so that an image can be saved
// with the ids it had, and nothing has to be kept twice. [Pack] makes an archive of a
// container's writable layer, or of any directory. [WriteLayout] writes images as
// an OCI image layout.
package image
