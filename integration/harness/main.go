package harness

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow/bench/rig"
	"github.com/plyfs/plyfs/layer/store/userns"
)

var (
	cell    *rig.Cell
	why     error  // tests cannot mount, and this is why
	binary  string // plyfs
	scratch string
)

// binaryVariable hands the built binary to the inner process, and may name one to test
// instead of building it.
const binaryVariable = "PLYFS_TEST_BINARY"

// Main runs the tests of a package, and ends the process.
func Main(m *testing.M) {
	// The outer process builds, with its own home and cache; the inner one runs.
	if os.Getenv(binaryVariable) == "" && possible() == nil {
		remove := provide()
		code := enter(m)
		remove()
		os.Exit(code)
	}
	os.Exit(enter(m))
}

// provide builds the binary under test. The function it returns removes it.
func provide() (remove func()) {
	dir, remove, err := rig.TempDir("plyfs-test-")
	if err == nil {
		err = build(filepath.Join(dir, "plyfs"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness: cannot build plyfs:", err)
		os.Exit(1)
	}
	os.Setenv(binaryVariable, filepath.Join(dir, "plyfs"))
	return remove
}

func enter(m *testing.M) int {
	if why = possible(); why != nil {
		return m.Run()
	}
	c, code, err := rig.Enter(rig.CellOptions{CPU: -1})
	if err != nil {
		why = err
		if os.Getenv("PLYFS_REQUIRE_MOUNT") == "1" {
			fmt.Fprintln(os.Stderr, "harness:", err)
			return 1
		}
		return m.Run()
	}
	if c == nil {
		return code
	}
	cell, scratch = c, c.Scratch
	return run(m)
}

// run runs the tests in the scratch directory, and looks for what their daemons said.
func run(m *testing.M) int {
	binary = os.Getenv(binaryVariable)
	os.Setenv("TMPDIR", scratch)
	// What the race detector finds in a daemon goes to files of its own, looked for below.
	races := filepath.Join(scratch, "race")
	os.Setenv("GORACE", "atexit_sleep_ms=0 log_path="+races)
	unix.Umask(0o022)
	// Whoever starts the tests with nohup does not mean what they start and hang up.
	if signal.Ignored(unix.SIGHUP) {
		signal.Notify(make(chan os.Signal, 1), unix.SIGHUP) // what is handled is the default in a child
	}
	result := m.Run()
	found, _ := filepath.Glob(races + ".*")
	for _, path := range found {
		b, _ := os.ReadFile(path)
		fmt.Fprintf(os.Stderr, "harness: a data race in a process of plyfs:\n%s\n", b)
		result = 1
	}
	return result
}

// possible says why no mount can work here.
func possible() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("no FUSE here: %w", err)
	}
	f.Close()
	return nil
}

// build makes the binary under test: with the race detector if the tests have it.
func build(to string) error {
	args := []string{"build", "-o", to}
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "github.com/plyfs/plyfs/cmd/plyfs")...)
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// Need skips the test where nothing can be mounted.
func Need(t testing.TB) {
	t.Helper()
	if why == nil {
		return
	}
	if os.Getenv("PLYFS_REQUIRE_MOUNT") == "1" {
		t.Fatalf("must mount here, and cannot: %v", why)
	}
	t.Skipf("cannot mount: %v", why)
}

// NeedRoot skips the test where it does not run as root of the machine.
func NeedRoot(t testing.TB) {
	t.Helper()
	Need(t)
	if cell.Root {
		return
	}
	mustNot(t, "needs root")
}

// Root reports whether the tests run as root of the machine. Those of an ordinary user run as root of a user
// namespace: no device but a whiteout can be made, marks are in user.overlay., and without subordinate ids nothing can
// belong to anybody else, see [Owners].
func Root() bool {
	if cell == nil {
		return os.Geteuid() == 0
	}
	return cell.Root
}

// Owners reports whether files can belong to more than one user.
func Owners() bool { return Root() || cell != nil && !userns.OneID() }

// NeedOwners skips the test where files can belong to one user only.
func NeedOwners(t testing.TB) {
	t.Helper()
	Need(t)
	if !Owners() {
		mustNot(t, "needs root or subordinate ids")
	}
}

// mustNot skips the test, or fails it where nothing may be skipped.
func mustNot(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("PLYFS_REQUIRE_MOUNT") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// NeedNoRace skips the test where plyfs has the race detector, which changes what is measured.
func NeedNoRace(t testing.TB) {
	t.Helper()
	if raceEnabled {
		t.Skip("plyfs is built with the race detector here")
	}
}

// Binary returns the path of the plyfs under test.
func Binary() string { return binary }
