package whiteout

import "strings"

// Namespace says where the marks of a layer are kept.
type Namespace uint8

const (
	// Trusted is trusted.overlay.*, which only a privileged process reads or writes.
	Trusted Namespace = iota
	// User is user.overlay.*, the kernel's mount option userxattr.
	User
)

const (
	trustedPrefix = "trusted.overlay."
	userPrefix    = "user.overlay."
	escapePrefix  = "overlay."
)

// String returns the prefix of the attributes' names.
func (ns Namespace) String() string { return ns.prefix() }

func (ns Namespace) prefix() string {
	if ns == User {
		return userPrefix
	}
	return trustedPrefix
}

// Name returns the attribute's full name for a key such as "opaque".
func (ns Namespace) Name(key string) string { return ns.prefix() + key }

// IsPrivate says whether an attribute belongs to the union and not to the file
// (kernel: ovl_is_private_xattr and ovl_is_escaped_xattr).
func (ns Namespace) IsPrivate(attr string) bool { return strings.HasPrefix(attr, ns.prefix()) }

// Escape returns the name under which a layer keeps a private-looking attribute that
// somebody set in the view; false if the name needs no escape.
func (ns Namespace) Escape(attr string) (string, bool) {
	key, ok := strings.CutPrefix(attr, ns.prefix())
	if !ok {
		return attr, false
	}
	return ns.prefix() + escapePrefix + key, true
}

// Unescape is the inverse of Escape: false for a mark of the union itself.
func (ns Namespace) Unescape(attr string) (string, bool) {
	key, ok := strings.CutPrefix(attr, ns.prefix()+escapePrefix)
	if !ok {
		return "", false
	}
	return ns.prefix() + key, true
}
