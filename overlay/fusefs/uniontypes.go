package fusefs

import "github.com/plyfs/plyfs/overlay"

// The union's own types, under the names this package uses.
type (
	Attr    = overlay.Attr
	Caller  = overlay.Caller
	SetAttr = overlay.SetAttr
	Entry   = overlay.Entry
)

// Bits of SetAttr.Mask.
const (
	SetMode     = overlay.SetMode
	SetUID      = overlay.SetUID
	SetGID      = overlay.SetGID
	SetSize     = overlay.SetSize
	SetAtime    = overlay.SetAtime
	SetMtime    = overlay.SetMtime
	SetAtimeNow = overlay.SetAtimeNow
	SetMtimeNow = overlay.SetMtimeNow
	KillPriv    = overlay.KillPriv
)

var _ Union[*overlay.Node] = (*overlay.FS)(nil)
