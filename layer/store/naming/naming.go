// Package naming has the rule for the names of volumes and containers, for the store and for
// those who read such names in flags and import no store.
package naming

import "fmt"

// MaxLength is how long a name may be. What is being removed has a prefix before its name, and
// both together must be a file's name.
const MaxLength = 128

// Check reports what is wrong with the name of a "volume" or "container": it has characters of
// [a-zA-Z0-9_.-], a letter or digit first, and for a volume two at least: Docker's rules, and
// those of -v.
func Check(kind, name string) error {
	least := 1
	if kind == "volume" {
		least = 2
	}
	bad := len(name) < least || len(name) > MaxLength
	for i, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '_' || c == '.' || c == '-'):
		default:
			bad = true
		}
	}
	if bad {
		return fmt.Errorf("%q is no name for a %s: want %d to %d of a-z A-Z 0-9 _ . -, a letter or digit first", name, kind, least, MaxLength)
	}
	return nil
}
