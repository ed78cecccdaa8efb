package cow

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A file that was just staged is opened with what is known of it, and that is what the filesystem says.
func TestOpenStaged(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, Config{})
		dense := pattern(60_001, 1)
		must(t, os.WriteFile(w.lowerPath("dense"), dense, 0o644))
		large := pattern(metaThreshold*20+77, 2)
		must(t, os.WriteFile(w.lowerPath("large"), large, 0o644))
		sparse := make([]byte, 100_000)
		copy(sparse[50_000:], pattern(3000, 3))
		f, err := os.Create(w.lowerPath("sparse"))
		must(t, err)
		must(t, f.Truncate(int64(len(sparse))))
		_, err = f.WriteAt(sparse[50_000:53_000], 50_000)
		must(t, err)
		must(t, f.Close())
		for name, want := range map[string][]byte{"dense": dense, "large": large, "sparse": sparse} {
			src := w.source(name)
			w.e.pairOf(&src.Stat).noClone.Store(true)
			s, err := w.e.Stage(src, byRange)
			must(t, err)
			if !s.Partial {
				s.Abort()
				continue
			}
			p, err := s.OpenPartial(name)
			must(t, err)
			w.commit(s, name)
			s.Close()
			if q := w.partial(name); q != p {
				t.Errorf("%s: opened twice", name)
			} else {
				q.Close()
			}
			blocks := p.blocks(int64(len(want)))
			must(t, p.load(0, blocks*p.g))
			fresh := &Partial{e: w.e, path: name, fd: -1}
			fd, err := unix.Open(w.upperPath(name), unix.O_RDWR|unix.O_CLOEXEC, 0)
			must(t, err)
			var st unix.Statx_t
			must(t, statFD(fd, &st))
			must(t, fresh.start(fd, &st))
			unix.Close(fd)
			must(t, fresh.load(0, blocks*p.g))
			for k := range blocks {
				if p.present.get(k) != fresh.present.get(k) {
					t.Errorf("%s: block %d of %d: %v, the filesystem says %v", name, k, blocks, p.present.get(k), fresh.present.get(k))
				}
			}
			if p.Record().Valid != fresh.rec.Valid || p.Finished() {
				t.Errorf("%s: record %+v, stored %+v", name, p.Record(), fresh.rec)
			}
			unix.Close(fresh.fd)
			_, err = p.WriteAt([]byte("new"), 4094)
			must(t, err)
			copy(want[4094:], "new")
			p.Close()
			_, err = w.e.Settle(SettleOptions{})
			must(t, err)
			sameContent(t, w.upperPath(name), want)
		}
	})
}
