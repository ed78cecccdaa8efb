// Package copyout copies a directory of a view to a directory of the host, with everything
// that belongs to it: owners, modes, times, extended attributes, access lists, hard links
// among its files, holes. It is how a new volume gets what the image has at its place.
package copyout
