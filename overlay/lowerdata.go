package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/layer"
)

func (fs *FS) openLower(d *layer.Dir, name string) (int, error) {
	fd, err := d.FD()
	if err != nil {
		return -1, err
	}
	defer d.Done()
	return fs.openSettled(d.Tree(), fd, name)
}

// openSettled opens a file of the layer t for its data. A layer that was the upper of a mount and not settled has
// files whose holes are not their data, which is in layers that nobody here knows: EIO, and one line for each layer.
func (fs *FS) openSettled(t *layer.Tree, fd int, name string) (int, error) {
	f, err := openQuiet(fd, name)
	if err != nil {
		return -1, err
	}
	var none [0]byte
	if _, err := unix.Fgetxattr(f, fs.attr(cow.RecordKey), none[:]); err != nil {
		return f, nil
	}
	unix.Close(f)
	if _, said := fs.unfinished.LoadOrStore(t, name); !said {
		fs.cfg.logf("%s: %q in it is unfinished: mount it with the lower layers it had, and unmount (plyfs check lists such files)", t.Path, name)
	}
	return -1, unix.EIO
}

// openQuiet opens a lower file without leaving an access time, where allowed.
func openQuiet(fd int, name string) (int, error) {
	f, err := layer.Open(fd, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME, 0)
	if err == unix.EPERM {
		f, err = layer.Open(fd, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	return f, err
}
