package copyup

import (
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/integration/harness"
)

// The first question for the figures of a mount does not wait for a frozen upper, where nothing can be tried.
func TestStatOfFrozenUpper(t *testing.T) {
	harness.NeedRoot(t)
	dir := harness.Filesystem(t, "ext4", 64<<20)
	l := harness.NewLayersOn(t, dir, "f a 1")
	if out, err := harness.Run("mount", "--lower", l.Lowers[0], "--upper", l.Upper, "--work", l.Work, l.Mnt); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { harness.Unmount(l.Mnt) })
	freeze(t, dir, true)
	thaw := time.AfterFunc(20*time.Second, func() { freeze(t, dir, false) }) // whoever waits, ends
	out, err := harness.Run("stat", l.Mnt)
	if !thaw.Stop() {
		t.Error("it waited")
	} else {
		freeze(t, dir, false)
	}
	if err != nil || strings.Contains(out, "copy-up from") {
		t.Errorf("frozen: %v\n%s", err, out)
	}
	eventually(t, "what can be done is known", func() bool {
		out, err := harness.Run("stat", l.Mnt)
		return err == nil && strings.Contains(out, "loop")
	})
}
