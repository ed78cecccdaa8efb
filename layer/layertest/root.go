package layertest

import (
	"os"
	"testing"

	"github.com/plyfs/plyfs/layer/store/userns"
)

// refused says why the tests of an ordinary user are not root of a user namespace; nil if they are, and for root.
var refused error

// Main runs the tests of a package that makes files with owners, and ends the process: for an ordinary user as root of a user namespace,
// as plyfs does what has to do with images.
func Main(m *testing.M) {
	if refused = userns.Init(); refused == nil {
		refused = userns.Enter()
	}
	os.Exit(m.Run())
}

// NeedOwner skips the test where no file can be root's, not even in a user namespace: files of images are.
func NeedOwner(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("no file can be root's here: ", refused)
	}
}

// NeedOwners skips the test where files cannot have several owners: an ordinary user needs subordinate ids for that.
func NeedOwners(t testing.TB) {
	t.Helper()
	NeedOwner(t)
	if userns.OneID() {
		t.Skip("no file can be anybody else's here: this user has no subordinate ids, or no newuidmap")
	}
}

// NeedRoot skips the test where it does not run as root of the machine: devices and trusted attributes are root's.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 || userns.Rootless() {
		t.Skip("devices and trusted attributes need root")
	}
}
