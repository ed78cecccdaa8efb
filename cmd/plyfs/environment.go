package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// environment reads the values of -e and --env-file, those of -e last.
func environment(list, files []string) ([]string, error) {
	var out []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		more, err := parseEnvFile(b)
		if err != nil {
			return nil, usagef("%s: %w", file, err)
		}
		out = append(out, more...)
	}
	for _, v := range list {
		name, _, has := strings.Cut(v, "=")
		if name == "" || strings.ContainsRune(v, 0) {
			return nil, usagef("%q is no environment variable", v)
		}
		if !has {
			value, ok := os.LookupEnv(name)
			if ok {
				v = name + "=" + value
			} // else the variable is taken away, as Docker does it
		}
		out = append(out, v)
	}
	return out, nil
}

// parseEnvFile reads a file of variables by Docker's rules: what follows the = is the value as it is,
// with blanks and quotes; a name has no blanks in it; a name alone is taken from our own environment, and
// means nothing if it is not there.
func parseEnvFile(b []byte) ([]string, error) {
	var out []string
	b = bytes.TrimPrefix(b, []byte("\ufeff")) // editors on Windows
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, len(b)+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimLeftFunc(lines.Text(), unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		name, _, has := strings.Cut(line, "=")
		var err error
		switch {
		case !utf8.ValidString(line) || strings.ContainsRune(line, 0):
			err = errors.New("no text")
		case name == "":
			err = errors.New("no name before the =")
		case strings.ContainsFunc(name, unicode.IsSpace):
			err = fmt.Errorf("a name with blanks in it: %q", name)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if !has {
			value, ok := os.LookupEnv(name)
			if !ok {
				continue
			}
			line = name + "=" + value
		}
		out = append(out, line)
	}
	return out, lines.Err()
}
