// Package mounts reads the table of mounts, as this process sees them.
package mounts

import (
	"bufio"
	"os"
	"strings"
)

// Plyfs is the type of what plyfs mounts.
const Plyfs = "fuse.plyfs"

// Mount is one line of the table.
type Mount struct {
	ID     string // unique while it is mounted
	Device string // as in "0:42", unique while the filesystem is mounted anywhere
	Point  string
	Flags  string // as in "ro,nosuid,relatime"
	Type   string
}

// Table returns all mounts, in the order of mounting.
func Table() ([]Mount, error) { return TableOf("/proc/self") }

// TableOf returns the mounts that another process sees, as it sees them; proc is its directory in /proc.
func TableOf(proc string) ([]Mount, error) {
	f, err := os.Open(proc + "/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var table []Mount
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 6 {
			continue
		}
		kind, _, _ := strings.Cut(after, " ")
		table = append(table, Mount{ID: fields[0], Device: fields[2], Point: unoctal(fields[4]), Flags: fields[5], Type: kind})
	}
	return table, lines.Err()
}

// Below returns the mounts at and below a directory, whose path has no symlinks in it.
func Below(dir string) ([]Mount, error) {
	table, err := Table()
	var below []Mount
	for _, m := range table {
		if m.Point == dir || strings.HasPrefix(m.Point, strings.TrimSuffix(dir, "/")+"/") {
			below = append(below, m)
		}
	}
	return below, err
}

// unoctal undoes what the kernel does to blanks, line breaks and backslashes.
func unoctal(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
