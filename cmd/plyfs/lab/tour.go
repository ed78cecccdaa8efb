package lab

import (
	"errors"
	"fmt"
	"io"
)

var tour = []step{
	{"Three layers, as an image has them. The 'c' entry in app/opt is a whiteout: it deletes " +
		"trial.txt from the layers below. runtime/var/cache is opaque: it replaces that directory.",
		"ls -l base/etc base/opt base/var/cache runtime/var/cache app/opt"},
	{"Mounted as one tree, the topmost layer first. 'upper' is empty and will take all changes.",
		"plyfs mount --lower app --lower runtime --lower base --upper upper --work work mnt"},
	{"etc/motd is in all three layers. The topmost wins.",
		"cat mnt/etc/motd\nplyfs explain mnt/etc/motd"},
	{"opt/trial.txt is in base, and gone from the view.",
		"ls -A mnt/opt\nplyfs explain mnt/opt/trial.txt"},
	{"var/cache shows only what the runtime layer put there.",
		"ls mnt/var/cache\nplyfs explain mnt/var/cache"},
	{"bin/tool and bin/tool-1.0 are one file with two names. A write to one copies the file up, " +
		"once, and both names show it. The file in base stays as it was.",
		"ls -i mnt/bin\necho '# changed' >> mnt/bin/tool\nls -i mnt/bin\ntail -n 1 mnt/bin/tool-1.0\ncat base/bin/tool\nplyfs explain mnt/bin/tool"},
	{"Deleting a lower file makes a whiteout in the upper.",
		"rm mnt/etc/hosts\nls -l upper/etc"},
	{"So this is all that changed, and what it took:",
		"plyfs diff mnt\nplyfs stat mnt"},
	{"Unmounted: the daemon is gone, and the upper holds the changes. Mounted again, they would be there again.",
		"plyfs umount mnt\nfind upper | sort"},
}

// Tour shows on a small example how layers work, and takes everything away again.
func Tour(out io.Writer) (err error) {
	s, err := newStage("plyfs-demo-", out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(false)) }()
	if err := makeLayers(s.dir, system); err != nil {
		return err
	}
	if err := makeDirs(s.dir, "upper", "work", "mnt"); err != nil {
		return err
	}
	before, err := Fingerprint(s.dir, names(system)...)
	if err != nil {
		return err
	}
	if err := s.steps(tour, func() {}); err != nil {
		return err
	}
	after, err := Fingerprint(s.dir, names(system)...)
	if err != nil {
		return err
	}
	if before != after {
		return errors.New("the lower layers changed, which must not happen")
	}
	_, err = fmt.Fprintln(out, "The three layers are what they were, to the last byte and attribute. The demo's directory is removed.")
	return err
}
