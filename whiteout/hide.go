package whiteout

import "strings"

const (
	// PrefixWhiteout begins the name of a file that hides another one beneath (AUFS,
	// OCI image specification, "Whiteouts").
	PrefixWhiteout = ".wh."
	// OpaqueName is the name of a file that makes its directory opaque.
	OpaqueName = ".wh..wh..opq"

	aufsMeta = ".wh..wh."
)

const (
	typeMask   = 0o170000
	typeSocket = 0o140000
	typeBlock  = 0o060000
	typeChar   = 0o020000
	typeFIFO   = 0o010000
)

// IsWhiteoutDev says whether an object is a whiteout: a character device 0:0.
func IsWhiteoutDev(mode, major, minor uint32) bool {
	return mode&typeMask == typeChar && major == 0 && minor == 0
}

// AUFSWhiteout returns the name of the file that hides name.
func AUFSWhiteout(name string) string { return PrefixWhiteout + name }

// AUFSTarget returns the name that the file called entry hides; false if it hides none.
func AUFSTarget(entry string) (string, bool) {
	if IsAUFSMeta(entry) {
		return "", false
	}
	name, ok := strings.CutPrefix(entry, PrefixWhiteout)
	if !ok || name == "" || name == "." || name == ".." {
		return "", false
	}
	return name, true
}

// IsAUFSMeta says whether entry is housekeeping: .wh..wh.opq, .wh..wh.plnk and so on.
func IsAUFSMeta(entry string) bool { return strings.HasPrefix(entry, aufsMeta) }

// Opaque says what a directory hides of the layers beneath it.
type Opaque uint8

const (
	// OpaqueNone hides nothing.
	OpaqueNone Opaque = iota
	// OpaqueYes hides everything.
	OpaqueYes
	// OpaqueXattrWhiteouts hides nothing as such, but empty files in it that carry the
	// whiteout attribute are whiteouts (kernel: overlayfs.rst, "Whiteouts and opaque
	// directories").
	OpaqueXattrWhiteouts
)

// LegacyOpaque names attributes of other programs that mean opaque when set to "y".
var LegacyOpaque = []string{"user.fuseoverlayfs.opaque"}

// ParseOpaque reads the value of the opaque attribute.
func ParseOpaque(v []byte) Opaque {
	if len(v) == 1 {
		switch v[0] {
		case 'y':
			return OpaqueYes
		case 'x':
			return OpaqueXattrWhiteouts
		}
	}
	return OpaqueNone
}
