// Package self finds this program, for what runs it again: daemons, stages, helpers.
package self

import "os"

// link is the kernel's name of the program of whoever looks.
const link = "/proc/self/exe"

// Program returns the path of this program: by name while that is still the same file, so that it shows under that
// name in ps(1) and top(1), else by the kernel's link to it.
func Program() string {
	name, err := os.Executable()
	if err != nil {
		return link
	}
	own, err := os.Stat(link)
	if err != nil {
		return name // no /proc
	}
	if named, err := os.Stat(name); err == nil && os.SameFile(own, named) {
		return name
	}
	return link
}
