// Package harness is what the tests through real mounts share: a closed place to run in,
// trees written as short lines of text, the three filesystems that one table of tests runs
// on (a plain directory, the kernel's overlayfs, plyfs), and a look at a live mount.
//
// A package of such tests begins with
//
//	func TestMain(m *testing.M) { harness.Main(m) }
//
// [Main] builds plyfs and runs the tests in mount and process namespaces of their own
// (cow/bench/rig): whatever happens, no mount, process or file is left behind. Each test
// that mounts begins with [Need], or with [Mount], which calls it: without FUSE or
// namespaces it is skipped with the reason, and fails instead with PLYFS_REQUIRE_MOUNT=1.
//
// An ordinary user's tests run as root of a user namespace: what only root of the machine can do begins with [NeedRoot], what needs
// files of several owners with [NeedOwners]. What such a user does by fusermount3 is in integration/user, see [MainAsUser].
package harness
