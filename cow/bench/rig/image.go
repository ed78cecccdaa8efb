package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Filesystems are the kinds of [NewImage].
var Filesystems = []string{"ext4", "xfs", "btrfs", "tmpfs"}

// Image is a mounted filesystem of its own.
type Image struct {
	Type string
	// Dir is the root of the filesystem.
	Dir    string
	file   string
	device string // "loop3"; empty for tmpfs
}

// NewImage makes a filesystem of the given type and size in bytes in the file
// dir/type.img, which is sparse, and mounts it at dir/type. A tmpfs needs no file.
func NewImage(fstype, dir string, size int64) (*Image, error) {
	if !slices.Contains(Filesystems, fstype) {
		return nil, fmt.Errorf("unknown filesystem %q (known: %s)", fstype, strings.Join(Filesystems, ", "))
	}
	im := &Image{Type: fstype, Dir: filepath.Join(dir, fstype)}
	if err := os.MkdirAll(im.Dir, 0o755); err != nil {
		return nil, err
	}
	if fstype == "tmpfs" {
		return im, unix.Mount("tmpfs", im.Dir, "tmpfs", 0, "size="+strconv.FormatInt(size, 10))
	}
	im.file = im.Dir + ".img"
	if err := im.format(size); err != nil {
		os.Remove(im.file)
		return nil, err
	}
	return im, nil
}

func (im *Image) format(size int64) error {
	if err := os.WriteFile(im.file, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(im.file, size); err != nil {
		return err
	}
	mkfs := map[string][]string{
		"ext4": {"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"},
		// As large as the image may be, so that small ones have the same log.
		"xfs":   {"mkfs.xfs", "-q", "-m", "reflink=1"},
		"btrfs": {"mkfs.btrfs", "-q"},
	}[im.Type]
	if err := run(mkfs[0], append(mkfs[1:], im.file)...); err != nil {
		return err
	}
	// The loop device is freed by the kernel when the filesystem is unmounted.
	// Direct: or the file's pages fill the memory beside those of the filesystem in it.
	out, err := exec.Command("losetup", "--find", "--show", "--direct-io=on", im.file).Output()
	if err != nil { // not every filesystem has that
		out, err = exec.Command("losetup", "--find", "--show", im.file).CombinedOutput()
	}
	if err != nil {
		return fmt.Errorf("losetup: %w: %s", err, strings.TrimSpace(string(out)))
	}
	dev := strings.TrimSpace(string(out))
	im.device = filepath.Base(dev)
	err = unix.Mount(dev, im.Dir, im.Type, unix.MS_NOATIME, "")
	if e := exec.Command("losetup", "--detach", dev).Run(); e != nil && err == nil {
		err = fmt.Errorf("losetup --detach: %w", e) // takes effect at the unmount
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", im.Type, err)
	}
	return nil
}

// Close unmounts the filesystem and removes its file.
func (im *Image) Close() error {
	err := unix.Unmount(im.Dir, 0)
	if err == unix.EBUSY {
		err = unix.Unmount(im.Dir, unix.MNT_DETACH)
	}
	if im.file != "" {
		os.Remove(im.file)
	}
	return err
}

// Flushes returns how many times the device was told to make its writes
// durable, which is what a sync costs; false when the filesystem has no device.
func (im *Image) Flushes() (int64, bool) {
	const flushField = 15 // Documentation/block/stat.rst, from 0
	if im == nil || im.device == "" {
		return 0, false
	}
	b, err := os.ReadFile("/sys/block/" + im.device + "/stat")
	f := strings.Fields(string(b))
	if err != nil || len(f) <= flushField {
		return 0, false
	}
	n, err := strconv.ParseInt(f[flushField], 10, 64)
	return n, err == nil
}
