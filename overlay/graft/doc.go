// Package graft puts further trees into the view of a union: directories and files of
// the host, volumes, and empty places in memory.
package graft
