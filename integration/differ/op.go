package differ

import (
	"fmt"
	"strings"
)

// Op is one operation. In text it is a line, its fields between spaces:
//
//	create P MODE           open(O_CREAT|O_EXCL)
//	put P SIZE SEED         open(O_CREAT|O_TRUNC), write
//	write P OFF SIZE SEED   open(O_WRONLY), pwrite
//	append P SIZE SEED      open(O_APPEND), write
//	trunc P SIZE            truncate
//	punch P OFF SIZE        fallocate(PUNCH_HOLE)
//	zero P OFF SIZE         fallocate(ZERO_RANGE)
//	alloc P OFF SIZE        fallocate
//	kzero P OFF SIZE        kalloc P OFF SIZE    the same, KEEP_SIZE
//	copy P Q OFF OFF SIZE   copy_file_range
//	dwrite P BLOCK N SEED   dread P BLOCK N      O_DIRECT, of 4 KiB
//	mwrite P OFF SIZE SEED  by a shared mapping, as far as the file goes
//	mkdir P MODE
//	rmdir P
//	unlink P
//	rmtree P                removes whatever is there, sorted
//	rename P Q [FLAG]       noreplace, exchange, whiteout
//	link P Q
//	symlink TARGET P
//	mknod P TYPE            fifo, sock, chr, white (0:0)
//	tmpfile DIR P SIZE SEED open(O_TMPFILE), write, linkat
//	chmod P MODE
//	chown P UID GID
//	utimens P SEC           both times
//	utime P ATIME MTIME     each now, omit or seconds
//	setx P NAME VALUE [FLAG]  create, replace
//	rmx P NAME
//	getx P NAME
//	listx P
//	chattr P LETTERS        has these of i, a, A, and not the others; - for none      flags P
//	acl P LIST              an access list, see aclOf; dacl P LIST    a default one
//	rmacl P WHICH           acl or dacl
//	ls P                    names and types, inode numbers against lstat
//	stat P
//	read P
//	readlink P
//	holes P                 SEEK_DATA and SEEK_HOLE: what is no data is zeros
//	open SLOT P HOW         r, w, rw, a (append), t (truncate), c (create)
//	topen SLOT DIR [x]      O_TMPFILE; x: O_EXCL
//	close SLOT
//	fread SLOT OFF SIZE     fwrite SLOT OFF SIZE SEED    ftrunc SLOT SIZE
//	fstat SLOT              fchmod SLOT MODE             flink SLOT P
//	fls SLOT                fsync SLOT                   fsetx SLOT NAME VALUE
//	fpunch, fzero, falloc SLOT OFF SIZE                  fchown SLOT UID GID
//	futime SLOT ATIME MTIME
//	fdir SLOT               begins to read a directory in pieces; so do, where none did, fsome SLOT, which reads one,
//	fend SLOT               and this, which reads the rest
//	as UID UMASK OP...      any of these by somebody else; 0: root, with this umask
//	remount                 closes everything, unmounts, mounts
//	swap                    remounts, with the uppers exchanged
type Op struct {
	Name string
	Args []string
}

func op(name string, args ...any) Op {
	o := Op{Name: name}
	for _, a := range args {
		o.Args = append(o.Args, fmt.Sprint(a))
	}
	return o
}

func (o Op) String() string {
	return strings.Join(append([]string{o.Name}, o.Args...), " ")
}

// Parse reads operations, one a line. Blank lines do not count.
func Parse(text string) []Op {
	var ops []Op
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 0 {
			ops = append(ops, Op{Name: f[0], Args: f[1:]})
		}
	}
	return ops
}

// arity is how many arguments an operation takes, besides an optional last one.
var arity = map[string]int{
	"create": 2, "put": 3, "write": 4, "append": 3, "trunc": 2, "punch": 3, "zero": 3, "alloc": 3, "copy": 5,
	"mkdir": 2, "rmdir": 1, "unlink": 1, "rmtree": 1, "rename": 2, "link": 2, "symlink": 2, "mknod": 2, "tmpfile": 4,
	"chmod": 2, "chown": 3, "utimens": 2, "setx": 3, "rmx": 2, "getx": 2, "listx": 1,
	"ls": 1, "stat": 1, "read": 1, "readlink": 1, "holes": 1,
	"open": 3, "close": 1, "fread": 3, "fwrite": 4, "ftrunc": 2, "fstat": 1, "fchmod": 2, "flink": 2, "fls": 1, "fsync": 1,
	"fsetx": 3, "remount": 0, "swap": 0,
	"kzero": 3, "kalloc": 3, "dwrite": 4, "dread": 3, "mwrite": 4, "utime": 3, "acl": 2, "dacl": 2, "rmacl": 2, "topen": 2,
	"fpunch": 3, "fzero": 3, "falloc": 3, "fchown": 3, "futime": 3, "fdir": 1, "fsome": 1, "fend": 1, "as": 3,
	"chattr": 2, "flags": 1,
}

// Case is a stack and what is done to it.
type Case struct {
	// Variant names the mount options, see variants.
	Variant string
	// On is the filesystem the layers are on: "tmpfs", "xfs", "btrfs", or "disk" for that of the
	// scratch directory; "" for what the variant says.
	On string
	// Fuse runs plyfs in a process of its own, through a mount; without it the union is called
	// directly.
	Fuse bool
	// Layers are the operations that make each lower layer, the lowest first.
	Layers [][]Op
	Ops    []Op
}

// on is the filesystem to use.
func (c *Case) on() string {
	switch {
	case c.On == "disk":
		return ""
	case c.On != "":
		return c.On
	}
	return variants[c.Variant].fs
}

// String is the case as a script that [ParseCase] reads.
func (c *Case) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "variant %s\n", c.Variant)
	if c.On != "" {
		fmt.Fprintf(&b, "on %s\n", c.On)
	}
	if c.Fuse {
		b.WriteString("fuse\n")
	}
	for _, l := range c.Layers {
		b.WriteString("layer\n")
		for _, o := range l {
			fmt.Fprintf(&b, "\t%s\n", o)
		}
	}
	b.WriteString("run\n")
	for _, o := range c.Ops {
		fmt.Fprintf(&b, "\t%s\n", o)
	}
	return b.String()
}

// ParseCase reads a script.
func ParseCase(text string) (*Case, error) {
	c := &Case{Variant: "default"}
	var to *[]Op
	for i, o := range Parse(text) {
		switch o.Name {
		case "variant":
			c.Variant = strings.Join(o.Args, "")
		case "on":
			c.On = strings.Join(o.Args, "")
		case "fuse":
			c.Fuse = true
		case "layer":
			c.Layers = append(c.Layers, nil)
			to = &c.Layers[len(c.Layers)-1]
		case "run":
			to = &c.Ops
		default:
			n, known := arity[o.Name]
			if !known || len(o.Args) < n || to == nil {
				return nil, fmt.Errorf("line %d: %q", i+1, o)
			}
			*to = append(*to, o)
		}
	}
	if variants[c.Variant] == nil {
		return nil, fmt.Errorf("no variant %q", c.Variant)
	}
	return c, nil
}
