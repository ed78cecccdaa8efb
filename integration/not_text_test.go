package integration

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/harness"
)

// TestNamesThatAreNoText: files and layers may have names that are not UTF-8, or speak to a terminal. What looks at them finds
// them, prints text, and tells their bytes in JSON.
func TestNamesThatAreNoText(t *testing.T) {
	harness.NeedRoot(t)
	l := harness.NewLayers(t, "f file 1")
	odd := func(dir *string, name string) {
		to := l.Root + "/" + name
		if err := os.Rename(*dir, to); err != nil {
			t.Fatal(err)
		}
		*dir = to
	}
	odd(&l.Lowers[0], "l\xe4\x1b[31m")
	odd(&l.Upper, "u\xff\tp")
	const dir, file = "d\xef\n", "f\xfe\x9b"
	if err := os.MkdirAll(l.Lowers[0]+"/"+dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.Lowers[0]+"/"+dir+"/"+file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	m := l.Plyfs(t)
	path := m.Path(dir + "/" + file)
	if err := unix.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := plyfs(t, "diff", m.Dir), "C /d\\xef\\n\nC /d\\xef\\n/f\\xfe\\x9b\n"; got != want {
		t.Errorf("diff: %q, want %q", got, want)
	}
	var changes []struct {
		Bytes []byte `json:"path_bytes"`
	}
	if err := json.Unmarshal([]byte(plyfs(t, "diff", "--json", m.Dir)), &changes); err != nil || len(changes) != 2 || string(changes[1].Bytes) != "/"+dir+"/"+file {
		t.Errorf("diff --json: %v, %q", err, changes)
	}
	var e struct {
		Bytes  []byte `json:"path_bytes"`
		Layers []struct {
			Dir  []byte `json:"dir_bytes"`
			Name []byte `json:"name_bytes"`
			Part string `json:"part"`
		} `json:"layers"`
	}
	if err := json.Unmarshal([]byte(plyfs(t, "explain", "--json", path)), &e); err != nil || string(e.Bytes) != "/"+dir+"/"+file || len(e.Layers) != 2 {
		t.Fatalf("explain --json: %v, %+v", err, e)
	}
	for i, want := range []struct{ dir, part string }{{l.Upper, "provides"}, {l.Lowers[0], "hidden"}} {
		if got := e.Layers[i]; string(got.Dir) != want.dir || string(got.Name) != dir+"/"+file || got.Part != want.part {
			t.Errorf("explain --json: %q, %q, %s", got.Dir, got.Name, got.Part)
		}
	}
	for _, args := range [][]string{{"stat"}, {"check"}, {"tree"}, {"explain"}, {"stat", "--json"}, {"check", "--json"}, {"tree", "--json"}} {
		at := m.Dir
		if args[0] == "explain" {
			at = path
		}
		out := plyfs(t, append(args, at)...)
		if !utf8.ValidString(out) || strings.IndexFunc(strings.ReplaceAll(out, "\n", ""), unicode.IsControl) >= 0 {
			t.Errorf("%v: %q", args, out)
		}
	}
}
