package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/cow/bench"
	"github.com/plyfs/plyfs/cow/bench/rig"
)

// noCell has benchmarks fail that would begin.
func noCell(t *testing.T) {
	enterCell = func(rig.CellOptions) (*rig.Cell, int, error) { return nil, 0, errors.New("it begins") }
	t.Cleanup(func() { enterCell = rig.Enter })
}

// What makes no sense in the command line of a benchmark is a usage error before anything is measured: one line that
// names the flag and says what there is instead.
func TestBenchUsage(t *testing.T) {
	noCell(t)
	for line, want := range map[string]string{
		"":                                  "usage: plyfs bench",
		"disks":                             `"disks" is no benchmark`,
		"copyup --rounds 0":                 "--rounds: 0: want 1 or more",
		"copyup --rounds -1 --quick":        "--rounds: -1: want 1 or more",
		"copyup --files -3":                 "--files: -3: want 1 or more",
		"copyup --files 0":                  "--files: 0: want 1 or more",
		"copyup --files 2 --jobs 1,4":       "--files: 2: want 4 or more",
		"copyup --layers -1":                "--layers: -1: want 1 or more",
		"copyup --layers 1,0":               "--layers: 0: want 1 or more",
		"copyup --jobs 0":                   "--jobs: 0: want 1 or more",
		"copyup --write 0":                  "--write: 0: want 1 or more",
		"copyup --size many":                `--size: "many" is not a size`,
		"copyup --offset -1":                `--offset: "-1" is not a size`,
		"copyup --largest -1":               `--largest: "-1" is not a size`,
		"copyup --largest 0":                "--largest: 0: want 1 or more",
		"copyup --largest 1":                "--largest: no case",
		"copyup --pattern cut":              `--pattern: unknown: "cut"; there are overwrite, append`,
		"copyup --apart":                    "--filesystem: needed where the layers are on another filesystem",
		"copyup --filesystem zfs":           `--filesystem: "zfs": want one of ext4, xfs`,
		"copyup --cases nothing":            "--cases: none matches; there are write 1 byte: 4 KiB | 16 KiB",
		"copyup --cases nothing --quick":    "--cases: none matches; there are write 1 byte: 4 KiB | 64 KiB",
		"copyup --cases (":                  "--cases: error parsing regexp",
		"copyup --peers nobody":             "--peers: none matches; there are plain, kernel",
		"copyup --peers kernel --cases ^wh": "there are plyfs-range, plyfs-copy",
		"copyup --cpu 1023":                 "--cpu: no processor 1023 to run on; there are ",
		"copyup --cpu 4096":                 "--cpu: no processor 4096 to run on; there are ",
		"copyup --cpu -2":                   "--cpu: no processor -2 to run on; there are ",
		"copyup --targets --quick":          "want one of them",
		"copyup --targets --size 1M":        "--targets has cases of its own",
		"copyup --json - --csv /dev/stdout": "--json and --csv: both go to /dev/stdout",
		"copyup --csv x --html ./x":         "--csv and --html: both go to ./x",
	} {
		err := dispatch(append([]string{"plyfs", "bench"}, strings.Fields(line)...))
		if codeOf(err) != exitUsage || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want a usage error with %q", line, err, want)
		}
	}
	for _, line := range []string{"copyup", "copyup --quick --rounds 1 --peers ^plyfs$ --cases chmod", "copyup --jobs 2 --layers 3 --files 2 --json -"} {
		if err := dispatch(append([]string{"plyfs", "bench"}, strings.Fields(line)...)); err == nil || !strings.Contains(err.Error(), "it begins") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// A file for the results that cannot be written costs no run: that is found out before.
func TestBenchFilesFirst(t *testing.T) {
	noCell(t)
	dir := t.TempDir()
	old := filepath.Join(dir, "old")
	if err := os.WriteFile(old, []byte("results"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"json", "csv", "gobench", "html"} {
		for _, path := range []string{dir, dir + "/none/x", old + "/x"} {
			err := dispatch([]string{"plyfs", "bench", "copyup", "--csv=" + old, "--" + flag, path})
			if codeOf(err) != exitFailed || !strings.Contains(err.Error(), "--"+flag+": cannot write results to "+path+": ") {
				t.Errorf("--%s %s: %v", flag, path, err)
			}
		}
	}
	err := dispatch([]string{"plyfs", "bench", "copyup", "--json", dir + "/new", "--svg", old})
	if codeOf(err) != exitFailed || !strings.Contains(err.Error(), "--svg: cannot write results to "+old+": ") {
		t.Errorf("--svg: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if b, err := os.ReadFile(old); err != nil || string(b) != "results" {
		t.Errorf("an older result has become %q, %v", b, err)
	}
}

// What was asked for is written, all of it, also after one of them failed.
func TestBenchFiles(t *testing.T) {
	dir := t.TempDir()
	f := benchCmd.flags()
	b := benchFileFlags(f)
	if err := f.Parse([]string{"--json", dir + "/gone/json", "--csv", dir + "/csv", "--svg", dir + "/a/svg"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/gone", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.check(); err != nil || b.standard() {
		t.Fatal(err)
	}
	if err := os.Remove(dir + "/gone"); err != nil {
		t.Fatal(err)
	}
	if err := b.write(&bench.Report{}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "gone/json") {
		t.Errorf("%v", err)
	}
	for _, path := range []string{"/csv", "/a/svg"} {
		if _, err := os.Stat(dir + path); err != nil {
			t.Error(err)
		}
	}
}
