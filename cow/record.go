package cow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// RecordKey is the key of the record's extended attribute in the overlay
// namespace: the kernel's overlayfs shows nobody what is in there.
const RecordKey = "plyfs"

// Time is a timestamp of a file.
type Time struct {
	Sec  int64
	Nsec uint32 // below 1e9
}

func timeOf(t unix.StatxTimestamp) Time { return Time{t.Sec, t.Nsec} }

// Record says which lower file an unfinished file completes, and how much of
// it still counts. Encoded it is an extended attribute of the upper file.
//
// Layer and Path are where the lower file was; they only help to find it. Who it
// is, is said by everything else, and a file that differs in any of it is refused.
type Record struct {
	Layer string // path of the layer's root on the host; a hint
	Path  string // from the layer's root, without a leading slash

	UUID       [16]byte // of the lower's filesystem, when HasUUID
	HasUUID    bool
	HandleType int32
	Handle     []byte // file handle; empty where its filesystem has none
	Ino        uint64
	Size       int64 // in bytes
	Mtime      Time
	Ctime      Time

	// Valid is the length in bytes below which a hole of the upper file means
	// "as in the lower file". It only ever gets less.
	Valid int64
	// Cut says that the upper file was being cut to Valid bytes: an upper file
	// that is longer was caught by a crash between the two steps of a truncation.
	Cut bool
}

// The encoded form, integers little-endian:
//
//	0    "PLYF"
//	4    version, 1
//	5    flags
//	6    valid, size, inode (8 bytes each)
//	30   mtime, ctime (seconds in 8 bytes, nanoseconds in 4)
//	54   uuid (16)
//	70   handle type (4)
//	74   length of the handle (1), of the layer (2), of the path (2)
//	79   handle, layer, path
//	end  CRC-32C of everything before it (4)
const (
	recordMagic   = "PLYF"
	recordVersion = 1
	recordFixed   = 79

	recordHasUUID = 1 << 0
	recordCut     = 1 << 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrBadRecord says that an attribute is no record this version understands.
var ErrBadRecord = errors.New("damaged or unknown record of an unfinished file")

// Encode returns the stored form. ParseRecord is its inverse for every record
// it returns without an error.
func (r *Record) Encode() []byte {
	b := make([]byte, recordFixed, recordFixed+len(r.Handle)+len(r.Layer)+len(r.Path)+4)
	copy(b, recordMagic)
	b[4] = recordVersion
	if r.HasUUID {
		b[5] |= recordHasUUID
	}
	if r.Cut {
		b[5] |= recordCut
	}
	le := binary.LittleEndian
	le.PutUint64(b[6:], uint64(r.Valid))
	le.PutUint64(b[14:], uint64(r.Size))
	le.PutUint64(b[22:], r.Ino)
	le.PutUint64(b[30:], uint64(r.Mtime.Sec))
	le.PutUint32(b[38:], r.Mtime.Nsec)
	le.PutUint64(b[42:], uint64(r.Ctime.Sec))
	le.PutUint32(b[50:], r.Ctime.Nsec)
	copy(b[54:], r.UUID[:])
	le.PutUint32(b[70:], uint32(r.HandleType))
	b[74] = byte(len(r.Handle))
	le.PutUint16(b[75:], uint16(len(r.Layer)))
	le.PutUint16(b[77:], uint16(len(r.Path)))
	b = append(b, r.Handle...)
	b = append(b, r.Layer...)
	b = append(b, r.Path...)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// fits says whether the variable parts can be encoded at all.
func (r *Record) fits() bool {
	return len(r.Handle) <= 0xff && len(r.Layer) <= 0xffff && len(r.Path) <= 0xffff
}

// ParseRecord decodes b. Its error wraps ErrBadRecord. A record that was parsed
// names no place outside a layer.
func ParseRecord(b []byte) (*Record, error) {
	bad := func(why string) (*Record, error) { return nil, fmt.Errorf("%w: %s", ErrBadRecord, why) }
	le := binary.LittleEndian
	if len(b) < recordFixed+4 || string(b[:4]) != recordMagic {
		return bad("not a record")
	}
	if b[4] != recordVersion || b[5]&^(recordHasUUID|recordCut) != 0 {
		return bad("written by another version")
	}
	body := b[:len(b)-4]
	if le.Uint32(b[len(body):]) != crc32.Checksum(body, castagnoli) {
		return bad("wrong checksum")
	}
	nh, nl, np := int(b[74]), int(le.Uint16(b[75:])), int(le.Uint16(b[77:]))
	if len(body) != recordFixed+nh+nl+np {
		return bad("wrong length")
	}
	r := &Record{
		HasUUID:    b[5]&recordHasUUID != 0,
		Cut:        b[5]&recordCut != 0,
		Valid:      int64(le.Uint64(b[6:])),
		Size:       int64(le.Uint64(b[14:])),
		Ino:        le.Uint64(b[22:]),
		Mtime:      Time{int64(le.Uint64(b[30:])), le.Uint32(b[38:])},
		Ctime:      Time{int64(le.Uint64(b[42:])), le.Uint32(b[50:])},
		HandleType: int32(le.Uint32(b[70:])),
	}
	copy(r.UUID[:], b[54:])
	rest := body[recordFixed:]
	if nh > 0 {
		r.Handle = append([]byte(nil), rest[:nh]...)
	}
	r.Layer, r.Path = string(rest[nh:nh+nl]), string(rest[nh+nl:])
	switch {
	case r.Valid < 0 || r.Size < 0 || r.Valid > r.Size:
		return bad("impossible length")
	case r.Mtime.Nsec >= 1e9 || r.Ctime.Nsec >= 1e9:
		return bad("impossible time")
	case !validPath(r.Path) || strings.ContainsRune(r.Layer, 0):
		return bad("impossible path")
	}
	return r, nil
}

// validPath accepts names joined by single slashes, none of them special.
func validPath(p string) bool {
	if p == "" || strings.ContainsRune(p, 0) {
		return false
	}
	for name := range strings.SplitSeq(p, "/") {
		if name == "" || name == "." || name == ".." {
			return false
		}
	}
	return true
}

// ReadRecord returns the record of name in the directory fd (or of fd itself,
// when name is empty), and nil when it has none. The error of a record that
// cannot be understood wraps ErrBadRecord, others are errnos.
func (e *Engine) ReadRecord(fd int, name string) (*Record, error) {
	var b []byte
	err := error(unix.EBADF)
	if name == "" {
		b, err = fgetxattr(fd, e.recordAttr)
	}
	if err == unix.EBADF { // a name, or a descriptor opened with O_PATH
		b, err = layer.GetxattrAll(fd, name, e.recordAttr)
	}
	if err == unix.ENODATA || (err != nil && unsupported(err)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return ParseRecord(b)
}

// identify makes the record of the lower file that fd has open. It says false
// when it could not be stored or trusted later.
func (e *Engine) identify(src *Source, fd int) (*Record, bool) {
	known := src.FD > 0 && fd == src.FD
	st := src.Stat
	if !known && statFD(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, false
	}
	dir, name := src.data()
	tree := dir.Tree()
	r := &Record{Layer: tree.Path, Path: name, UUID: tree.FS.UUID, HasUUID: tree.FS.HasUUID,
		Ino: st.Ino, Size: int64(st.Size), Mtime: timeOf(st.Mtime), Ctime: timeOf(st.Ctime)}
	if d := dir.Path(); d != "" {
		r.Path = d + "/" + name
	}
	switch {
	case !tree.FS.HandleOK:
	case !known:
		if h, err := layer.Handle(fd, ""); err == nil {
			r.HandleType, r.Handle = h.Type(), h.Bytes()
		}
	case src.Handle != nil:
		r.HandleType, r.Handle = src.Handle.Type(), src.Handle.Bytes()
	}
	return r, r.fits() && validPath(r.Path)
}

// differs says in what the open file fd is not the one recorded; "" when it is. st becomes
// that of the file.
func (r *Record) differs(dir *layer.Dir, fd int, st *unix.Statx_t) string {
	if err := statFD(fd, st); err != nil {
		return "stat: " + err.Error()
	}
	fs := &dir.Tree().FS
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return "it is no regular file any more"
	case int64(st.Size) != r.Size:
		return fmt.Sprintf("its size was %d and is %d", r.Size, st.Size)
	case timeOf(st.Mtime) != r.Mtime:
		return "its modification time changed"
	case st.Ino != r.Ino:
		return "it is another inode"
	case timeOf(st.Ctime) != r.Ctime:
		return "its change time changed"
	case r.HasUUID && fs.HasUUID && r.UUID != fs.UUID:
		return "it is on another filesystem"
	}
	if len(r.Handle) > 0 && fs.HandleOK {
		if h, err := layer.Handle(fd, ""); err == nil && (h.Type() != r.HandleType || string(h.Bytes()) != string(r.Handle)) {
			return "it is another file (file handle)"
		}
	}
	return ""
}
