// Package differ compares plyfs with the kernel's overlayfs, operation by operation.
//
// A [Case] is a stack of lower layers and a list of operations ([Op]). The layers are made
// by the kernel's overlayfs itself: each is the upper of a mount over those beneath it, so
// that they have whiteouts, opaque directories, redirects and hard links as they come up in
// life. Then both filesystems are mounted over the same layers, each with an upper of its
// own, and the operations run on both. After each the results must be equal: errno, bytes,
// attributes. At the end, and after remounting and after swapping the two uppers, the
// trees must be equal too, and inode numbers must be what they were ([Dump]). In the variant "graft" plyfs
// shows a mount of the kernel's as a bind.
//
// Operations are lines of text (op.go lists them), so that a case is a short script that can be
// printed, shrunk ([Shrink]), and kept as a regression test (scripts_test.go).
//
// TestFuzz makes up cases from a seed, which it prints, for PLYFS_FUZZ_TIME (a duration);
// PLYFS_FUZZ_SEED runs one seed again. PLYFS_FUZZ_VARIANT, PLYFS_FUZZ_VIA and PLYFS_FUZZ_ON keep to one way
// of mounting, to mounts or the union alone, to one filesystem ([Only]).
package differ
