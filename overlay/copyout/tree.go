package copyout

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
	"github.com/plyfs/plyfs/overlay"
)

// Result says what was copied.
type Result struct {
	Found bool // there was a directory to copy
	Files int  // entries copied; of an empty directory only the attributes are
	// Left are what could not be made, each with its reason: devices, for an ordinary
	// user, and attributes that the target's filesystem does not know.
	Left []string
}

// copier is one copy under way.
type copier struct {
	fs    *overlay.FS
	root  int               // descriptor of the target's root
	links map[uint64]string // inode number: the path of its first copy, below root
	out   Result
}

// Tree copies the directory at name, an absolute path in the view, into the empty directory of
// the descriptor to, which gets its attributes too. Symbolic links in name are
// resolved inside the view. What is missing or no directory is not copied, and no error.
func Tree(fs *overlay.FS, name string, to int) (*Result, error) {
	c := &copier{fs: fs, root: to, links: map[uint64]string{}}
	n, a, err := c.resolve(name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return &c.out, nil
	}
	if err != nil {
		return &c.out, fmt.Errorf("%s: %w", name, err)
	}
	defer c.drop(n)
	if a.Mode&unix.S_IFMT != unix.S_IFDIR {
		return &c.out, nil
	}
	entries, err := c.list(n)
	if err != nil {
		return &c.out, err
	}
	c.out.Found = true
	return &c.out, c.fill(n, a, entries, to, "")
}

// drop gives up the reference to a node that resolve or Lookup returned.
func (c *copier) drop(n *overlay.Node) {
	if n != c.fs.Root() {
		c.fs.Forget(n.ID(), 1)
	}
}

// maxLinks bounds the symbolic links in one path, as the kernel does.
const maxLinks = 40

// resolve walks a path from the root of the view, following links inside of it.
func (c *copier) resolve(name string) (*overlay.Node, *overlay.Attr, error) {
	var a overlay.Attr
	links := 0
	todo := strings.Split(name, "/")
	stack := []*overlay.Node{c.fs.Root()} // the directories down to where we are
	defer func() {
		for _, n := range stack {
			c.drop(n)
		}
	}()
	for len(todo) > 0 {
		word := todo[0]
		todo = todo[1:]
		here := stack[len(stack)-1]
		switch word {
		case "", ".":
			continue
		case "..":
			if len(stack) > 1 {
				c.drop(here)
				stack = stack[:len(stack)-1]
			}
			continue
		}
		n, err := c.fs.Lookup(nil, here, word, &a)
		if err != nil {
			return nil, nil, err
		}
		if a.Mode&unix.S_IFMT != unix.S_IFLNK {
			stack = append(stack, n)
			continue
		}
		target, err := c.fs.Readlink(n)
		c.drop(n)
		if err != nil {
			return nil, nil, err
		}
		if links++; links > maxLinks {
			return nil, nil, unix.ELOOP
		}
		if path.IsAbs(target) {
			for _, n := range stack[1:] {
				c.drop(n)
			}
			stack = stack[:1]
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	last := stack[len(stack)-1]
	if err := c.fs.Getattr(last, &a); err != nil {
		return nil, nil, err
	}
	stack = stack[:len(stack)-1] // the caller's now
	return last, &a, nil
}

// list returns the names in a directory.
func (c *copier) list(n *overlay.Node) ([]string, error) {
	var names []string
	buf := make([]overlay.Entry, 256)
	for off := uint64(0); ; {
		got, err := c.fs.ReadDir(n, off, buf)
		if err != nil {
			return nil, err
		}
		if got == 0 {
			return names, nil
		}
		for _, e := range buf[:got] {
			if e.Name != "." && e.Name != ".." {
				names = append(names, e.Name)
			}
		}
		off = buf[got-1].Off
	}
}

// fill copies the entries of n into the directory to, and then its attributes: copying into it
// has changed its times. at is its path below the root.
func (c *copier) fill(n *overlay.Node, a *overlay.Attr, entries []string, to int, at string) error {
	for _, name := range entries {
		if err := c.entry(n, name, to, path.Join(at, name)); err != nil {
			return err
		}
	}
	return c.attributes(n, a, to, "", at)
}

// entry copies one name of the directory parent.
func (c *copier) entry(parent *overlay.Node, name string, to int, at string) error {
	var a overlay.Attr
	n, err := c.fs.Lookup(nil, parent, name, &a)
	if err == unix.ENOENT {
		return nil
	}
	if err == nil {
		defer c.drop(n)
		err = c.object(n, &a, name, to, at)
	}
	if err != nil && !strings.HasPrefix(err.Error(), "/") {
		err = fmt.Errorf("/%s: %w", at, err)
	}
	return err
}

func (c *copier) object(n *overlay.Node, a *overlay.Attr, name string, to int, at string) error {
	kind := uint32(a.Mode & unix.S_IFMT)
	if kind != unix.S_IFDIR && a.Nlink > 1 {
		if first, ok := c.links[a.Ino]; ok {
			c.out.Files++
			return unix.Linkat(c.root, first, to, name, 0)
		}
		c.links[a.Ino] = at
	}
	c.out.Files++
	switch kind {
	case unix.S_IFDIR:
		return c.directory(n, a, name, to, at)
	case unix.S_IFREG:
		return c.file(n, a, name, to, at)
	case unix.S_IFLNK:
		target, err := c.fs.Readlink(n)
		if err == nil {
			err = layer.Symlink(target, to, name)
		}
		if err != nil {
			return err
		}
	default:
		dev := int(unix.Mkdev(a.Rdev_major, a.Rdev_minor))
		err := layer.Mknod(to, name, kind|0o600, dev)
		if err == unix.EPERM {
			c.out.Files--
			delete(c.links, a.Ino)
			c.out.Left = append(c.out.Left, fmt.Sprintf("/%s: a device cannot be made here", at))
			return nil
		}
		if err != nil {
			return err
		}
	}
	return c.attributes(n, a, to, name, at)
}

func (c *copier) directory(n *overlay.Node, a *overlay.Attr, name string, to int, at string) error {
	if err := layer.Mkdir(to, name, 0o700); err != nil {
		return err
	}
	fd, err := layer.Open(to, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	entries, err := c.list(n)
	if err != nil {
		return err
	}
	return c.fill(n, a, entries, fd, at)
}
