package whiteout

import (
	"errors"
	"strings"
)

// Redirect says under which name the lower part of a renamed object is to be found.
type Redirect struct {
	Path     string // a name, or an absolute path from the root of the layer
	Absolute bool
}

var errRedirect = errors.New("bad redirect")

// ParseRedirect reads the redirect attribute and refuses whatever could lead out of a
// layer (kernel: ovl_get_redirect_xattr): empty elements, "." and "..", and a relative
// redirect of more than one name.
func ParseRedirect(v []byte) (Redirect, error) {
	s := string(v)
	if s == "" || strings.IndexByte(s, 0) >= 0 || len(s) > 4096 {
		return Redirect{}, errRedirect
	}
	r := Redirect{Path: s, Absolute: s[0] == '/'}
	elems := []string{s}
	if r.Absolute {
		elems = strings.Split(s[1:], "/")
	}
	for _, e := range elems {
		if e == "" || e == "." || e == ".." || strings.IndexByte(e, '/') >= 0 || len(e) > 255 {
			return Redirect{}, errRedirect
		}
	}
	return r, nil
}

// Encode is the inverse of ParseRedirect.
func (r Redirect) Encode() []byte { return []byte(r.Path) }
