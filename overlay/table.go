package overlay

import (
	"sync"

	"golang.org/x/sys/unix"
)

// table knows every live node by its number, every directory's live children, and
// the nodes of hard-linked inodes. Its lock is a leaf: nothing else is locked, and
// no system call made, while it is held (descriptors of dead nodes are closed after).
type table struct {
	mu    sync.Mutex
	next  uint64
	pages map[uint64]*page
	last  *page // page of the newest node
	links map[linkKey]*Node
	live  int
	// renewed are the nodes that [FS.Renew] took out of the view, by number, with the upper inodes they serve on, and
	// heirs counts these: the node of such an inode is entered in links though it has one name. A further one may be
	// made from the node that was taken out, and who looks that up must find the same node.
	renewed map[uint64]linkKey
	heirs   map[linkKey]int
}

const pageBits = 8

// page holds the nodes of 256 consecutive numbers. Numbers are not given again, so
// that a page goes when its last node does.
type page struct {
	number uint64
	used   int
	nodes  [1 << pageBits]*Node
}

// linkKey identifies an inode with several names: the lower inode all its names
// come from, or the upper one.
type linkKey struct {
	fs  uint8 // index of the filesystem, see inode numbers
	ino uint64
}

func (t *table) init() {
	t.next = 1
	t.pages = map[uint64]*page{}
	t.links = map[linkKey]*Node{}
	t.renewed = map[uint64]linkKey{}
	t.heirs = map[linkKey]int{}
}

// insert numbers n. t.mu is held.
func (t *table) insert(n *Node) {
	n.id = t.next
	t.next++
	num := n.id >> pageBits
	p := t.last
	if p == nil || p.number != num {
		p = &page{number: num}
		t.pages[num] = p
		t.last = p
	}
	p.nodes[n.id&(1<<pageBits-1)] = n
	p.used++
	t.live++
}

func (t *table) get(id uint64) *Node {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.pages[id>>pageBits]; p != nil {
		return p.nodes[id&(1<<pageBits-1)]
	}
	return nil
}

// drop takes count references away and removes what nobody refers to any more:
// n, and the directories that were alive only as its parents. It returns the dead
// nodes, whose descriptors the caller closes without t.mu.
func (t *table) drop(n *Node, count uint64) []*Node {
	t.mu.Lock()
	defer t.mu.Unlock()
	var dead []*Node
	n.refs -= min(count, n.refs)
	if n.refs > 0 {
		return nil
	}
	for todo := []*Node{n}; len(todo) > 0; {
		n, todo = todo[len(todo)-1], todo[:len(todo)-1]
		t.remove(n)
		dead = append(dead, n)
		if n.parent != nil {
			todo = t.unname(n, n.parent, n.name, todo)
		}
		if n.links != nil {
			for _, a := range n.links.aliases {
				todo = t.unname(n, a.parent, a.name, todo)
			}
		}
	}
	return dead
}

// unname takes n out of the children of parent, and appends parent to dead if that
// was the last reference to it.
func (t *table) unname(n, parent *Node, name string, dead []*Node) []*Node {
	if parent.d.children[name] != n {
		return dead
	}
	delete(parent.d.children, name)
	parent.refs--
	if parent.refs == 0 {
		dead = append(dead, parent)
	}
	return dead
}

func (t *table) remove(n *Node) {
	num := n.id >> pageBits
	if p := t.pages[num]; p != nil && p.nodes[n.id&(1<<pageBits-1)] == n {
		p.nodes[n.id&(1<<pageBits-1)] = nil
		p.used--
		t.live--
		if p.used == 0 && p != t.last {
			delete(t.pages, num)
		}
	}
	if n.links != nil && t.links[n.links.key] == n {
		delete(t.links, n.links.key)
	}
	if k, ok := t.renewed[n.id]; ok {
		delete(t.renewed, n.id)
		if t.heirs[k]--; t.heirs[k] == 0 {
			delete(t.heirs, k)
		}
	}
}

// child returns the live node of a name, with one more reference, or nil.
func (t *table) child(parent *Node, name string) *Node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := parent.d.children[name]
	if n != nil {
		n.refs++
	}
	return n
}

// peek is child without the reference: for callers that hold the names lock of
// parent and keep n no longer than the kernel keeps its name.
func (t *table) peek(parent *Node, name string) *Node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return parent.d.children[name]
}

// Node returns the node with the number, or nil.
func (fs *FS) Node(id uint64) *Node { return fs.nodes.get(id) }

// Root returns the root directory, which is never forgotten.
func (fs *FS) Root() *Node { return fs.root }

// Forget takes back count references that earlier operations gave. Nodes nobody refers to
// and nobody's parent is are dropped, with their descriptors.
func (fs *FS) Forget(id, count uint64) {
	n := fs.nodes.get(id)
	if n == nil || n == fs.root {
		return
	}
	fs.unref(n, count)
}

func (fs *FS) unref(n *Node, count uint64) {
	for _, dead := range fs.nodes.drop(n, count) {
		fs.bury(dead)
	}
}

// bury releases what a node outside the table still holds.
func (fs *FS) bury(n *Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dir != nil {
		n.dir.Leaving.RLock()
		defer n.dir.Leaving.RUnlock()
	}
	fs.files.evict(n)
	anchor := n.anchor
	n.anchor = -1
	if d := n.d; d != nil {
		fs.dirs.remove(n)
		if u := d.upper.Load(); u != nil && u != fs.upperRoot() {
			u.Forget()
		}
		for _, l := range d.lowers {
			if l != l.Tree().Root {
				l.Forget()
			}
		}
	}
	if anchor >= 0 {
		unix.Close(int(anchor))
	}
}

// inherits says whether a node was renewed that serves on the upper inode k.
func (t *table) inherits(k linkKey) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.heirs[k] > 0
}

// renew notes that n serves on the upper inode k without a name.
func (t *table) renew(n *Node, k linkKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.renewed[n.id]; !ok {
		t.renewed[n.id] = k
		t.heirs[k]++
	}
}

// detach takes every name from n, which stays alive for those who have it open. It returns
// the directories that were alive only as its parents, for bury. n.mu is held for writing.
func (t *table) detach(n *Node) (dead []*Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var todo []*Node
	if n.parent != nil {
		todo = t.unname(n, n.parent, n.name, todo)
	}
	if n.links != nil {
		for _, a := range n.links.aliases {
			todo = t.unname(n, a.parent, a.name, todo)
		}
		if t.links[n.links.key] == n {
			delete(t.links, n.links.key)
		}
		n.links = nil
	}
	n.parent, n.name = nil, ""
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		t.remove(d)
		dead = append(dead, d)
		if d.parent != nil {
			todo = t.unname(d, d.parent, d.name, todo)
		}
	}
	return dead
}
