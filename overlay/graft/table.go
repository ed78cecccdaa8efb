package graft

import (
	"container/list"
	"sync"

	"golang.org/x/sys/unix"
)

// table knows the live and synthetic nodes. Its lock is a leaf.
type table struct {
	mu    sync.Mutex
	next  uint64
	ids   map[uint64]*inode
	idle  *list.List // *inode with a descriptor that may be closed, oldest last
	limit int
}

func (t *table) init() {
	t.ids = map[uint64]*inode{}
	t.idle = list.New()
	t.limit = 256
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) == nil {
		t.limit = int(min(max(r.Cur/4, 1), 1<<17))
	}
}

// insert numbers n, which has one reference. t.mu is held.
func (t *table) insert(n *inode) {
	t.next++
	n.id = ourBit | t.next
	n.refs = 1
	t.ids[n.id] = n
}

func (t *table) get(id uint64) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ids[id]
}

// unref takes count references away, and what nobody refers to any more out of the table.
func (t *table) unref(n *inode, count uint64) {
	var dead []*inode
	t.mu.Lock()
	n.refs -= min(count, n.refs)
	for n != nil && n.refs == 0 {
		delete(t.ids, n.id)
		if n.src != nil && n.src.nodes[n.key] == n {
			delete(n.src.nodes, n.key)
		}
		if n.elem != nil {
			t.idle.Remove(n.elem)
			n.elem = nil
		}
		dead = append(dead, n)
		p := n.parent
		n.parent = nil
		if p != nil {
			p.refs--
		}
		n = p
	}
	t.mu.Unlock()
	for _, n := range dead {
		n.bury()
	}
}

// bury closes what a node outside the table still has open.
func (n *inode) bury() {
	n.desc.Swap(nil).done()
	n.mu.Lock()
	for _, slot := range []**desc{&n.r, &n.w, &n.a, &n.stash} {
		drop(slot)
	}
	n.mu.Unlock()
}

// place notes where n was seen. t.mu is held; the returned parent, if any, lost a
// reference that the caller takes away with unref once t.mu is free.
func (t *table) place(n, parent *inode, name string) (old *inode) {
	if n.top || n.parent == parent && n.name == name {
		return nil
	}
	for p := parent; p != nil; p = p.parent {
		if p == n { // two lookups crossed while somebody moved directories
			return nil
		}
	}
	old = n.parent
	n.parent, n.name = parent, name
	if parent != nil {
		parent.refs++
	}
	return old
}

// opened enters a node whose descriptor was opened, and closes what is too much.
func (t *table) opened(n *inode) {
	var out []*inode
	t.mu.Lock()
	if n.elem == nil && !n.top && n.refs > 0 {
		n.elem = t.idle.PushFront(n)
	}
	for tries := 0; t.idle.Len() > t.limit && tries < 8; tries++ {
		e := t.idle.Back()
		old := e.Value.(*inode)
		if old == n {
			break
		}
		t.idle.Remove(e)
		old.elem = nil
		out = append(out, old)
	}
	t.mu.Unlock()
	for _, old := range out {
		if old.mu.TryLock() {
			busy := old.readers+old.writers > 0
			if !busy {
				drop(&old.stash)
				old.desc.Swap(nil).done()
			}
			old.mu.Unlock()
			if !busy {
				continue
			}
		}
		t.mu.Lock() // open files keep theirs: they may have no name any more
		if old.elem == nil && old.refs > 0 {
			old.elem = t.idle.PushFront(old)
		}
		t.mu.Unlock()
	}
}
