package cow

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layer"
)

// Ways returns the methods by which the data of the files of a layer gets to the upper, the preferred one
// first: clone and copy_range as far as the upper's filesystem was found to have them, and no file of the layer was
// refused so far; range where the upper can hold unfinished files. The first call tries that with files
// in the work directory.
func (e *Engine) Ways(t *layer.Tree) []Method {
	e.probe.ways.Do(e.probeWays)
	var out []Method
	p := new(pair)
	if known, ok := e.pairs.Load(t.FS.Dev); ok {
		p = known.(*pair)
	}
	same := e.sameFilesystem(&t.FS)
	if same && e.probe.clones && !p.noClone.Load() {
		out = append(out, MethodClone)
	}
	if e.cfg.Threshold >= 0 && e.Block() > 0 {
		out = append(out, MethodRange)
	}
	if same && e.probe.copies && !p.noCopyRange.Load() {
		out = append(out, MethodCopyRange)
	}
	return append(out, MethodLoop)
}

// TryWays begins to try, in the background, what Ways must know, and returns what is closed when that is done. It writes,
// and where the upper's filesystem is frozen that takes as long as this lasts. Close waits for it.
func (e *Engine) TryWays() <-chan struct{} {
	e.probe.asked.Do(func() {
		e.probe.tried = make(chan struct{})
		e.probe.under.Go(func() {
			defer close(e.probe.tried)
			e.probe.ways.Do(e.probeWays)
			e.Block()
		})
	})
	return e.probe.tried
}

// sameFilesystem says whether a layer is on the upper's filesystem: only then can files share extents, or
// the kernel copy between them. The subvolumes of a btrfs have devices of their own.
func (e *Engine) sameFilesystem(fs *layer.Filesystem) bool {
	up := &e.work.Tree().FS
	return fs.Dev == up.Dev || fs.Magic == unix.BTRFS_SUPER_MAGIC && up.Magic == fs.Magic && up.HasUUID && fs.HasUUID && up.UUID == fs.UUID
}

// probeWays clones and copies a file of the work directory. What cannot even be tried is not there.
func (e *Engine) probeWays() {
	dir, err := e.work.FD()
	if err != nil {
		return
	}
	defer e.work.Done()
	var fds [2]int
	for i := range fds {
		name, err := e.withTemp(func(name string) (err error) {
			fds[i], err = layer.Open(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
			return err
		})
		if err != nil {
			return
		}
		defer unix.Close(fds[i])
		defer func() { _ = layer.Unlink(dir, name) }() // else CleanWork does
	}
	if pwriteFull(fds[0], make([]byte, minBlock), 0) != nil {
		return
	}
	c := copier{dst: fds[1], src: fds[0], pair: new(pair)}
	e.probe.clones, _ = c.clone()
	_, err = c.chunk(0, minBlock)
	e.probe.copies = err == nil && c.method == MethodCopyRange
}
