package layer

import "unicode/utf8"

// NotText returns the bytes of a name that is not UTF-8, and nil for one that is. A string of JSON cannot hold
// such a name, and becomes another; what the bytes are is said beside it, in "path_bytes" and the like (base64).
func NotText(name string) []byte {
	if utf8.ValidString(name) {
		return nil
	}
	return []byte(name)
}
