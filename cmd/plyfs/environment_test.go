package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEnvFile(t *testing.T) {
	t.Setenv("FROM_HERE", "here's")
	const text = "\ufeffA=1\n# comment\n\n  B= two words \r\n\tC=\"quoted\"#no comment\nFROM_HERE\nNOT_HERE_AT_ALL\nD=\nE=a=b"
	got, err := parseEnvFile([]byte(text))
	want := []string{"A=1", "B= two words ", `C="quoted"#no comment`, "FROM_HERE=here's", "D=", "E=a=b"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for text, word := range map[string]string{
		"A=1\nTWO WORDS=x": "line 2: a name with blanks",
		"A =x":             "a name with blanks",
		"export A":         "a name with blanks",
		"A\tB=x":           "a name with blanks",
		"=x":               "no name",
		"A=\xff":           "no text",
		"A=\x00":           "no text",
	} {
		path := filepath.Join(t.TempDir(), "env")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := environment(nil, []string{path})
		var usage usageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), word) || !strings.HasPrefix(err.Error(), path+": line ") {
			t.Errorf("%q: %v, want a usage error with %q", text, err, word)
		}
	}
}
