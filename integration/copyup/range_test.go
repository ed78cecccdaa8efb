package copyup

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/integration/harness"
)

const bigSize = 3<<20 + 777

// rangeCase does something to a file of the view and to what it should be.
type rangeCase struct {
	name string
	do   func(t *testing.T, path string, want []byte) (string, []byte)
}

var rangeCases = []rangeCase{
	{"one byte", func(t *testing.T, p string, want []byte) (string, []byte) {
		return p, writeAt(t, p, want, "!", 1<<20+5)
	}},
	{"across blocks", func(t *testing.T, p string, want []byte) (string, []byte) {
		want = writeAt(t, p, want, string(bytes.Repeat([]byte("ab"), 5000)), 4090)
		return p, writeAt(t, p, want, "tail", bigSize-3)
	}},
	{"append", func(t *testing.T, p string, want []byte) (string, []byte) {
		f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		defer f.Close()
		_, err = f.WriteString("more")
		must(t, err)
		return p, append(want, "more"...)
	}},
	{"write far beyond the end", func(t *testing.T, p string, want []byte) (string, []byte) {
		return p, writeAt(t, p, want, "far", bigSize+100_000)
	}},
	{"zeros", func(t *testing.T, p string, want []byte) (string, []byte) {
		return p, writeAt(t, p, want, string(make([]byte, 9000)), 40_000)
	}},
	{"chmod", func(t *testing.T, p string, want []byte) (string, []byte) {
		must(t, os.Chmod(p, 0o600))
		return p, want
	}},
	{"chmod, then write", func(t *testing.T, p string, want []byte) (string, []byte) {
		must(t, os.Chmod(p, 0o600))
		return p, writeAt(t, p, want, "x", 12345)
	}},
	{"rename", func(t *testing.T, p string, want []byte) (string, []byte) {
		must(t, os.Rename(p, p+"-renamed"))
		return p + "-renamed", writeAt(t, p+"-renamed", want, "renamed", 70_000)
	}},
	{"write, then rename", func(t *testing.T, p string, want []byte) (string, []byte) {
		want = writeAt(t, p, want, "before", 70_000)
		must(t, os.Rename(p, p+"-renamed"))
		// Something else where the list of unfinished files says that it is.
		must(t, os.WriteFile(p, []byte("small"), 0o644))
		return p + "-renamed", want
	}},
	{"move with its directory", func(t *testing.T, p string, want []byte) (string, []byte) {
		must(t, os.Mkdir(p+"-dir", 0o755))
		must(t, os.Rename(p, p+"-dir/f"))
		want = writeAt(t, p+"-dir/f", want, "before", 70_000)
		must(t, os.Rename(p+"-dir", p+"-moved"))
		return p + "-moved/f", want
	}},
	{"link", func(t *testing.T, p string, want []byte) (string, []byte) {
		must(t, os.Link(p, p+"-link"))
		want = writeAt(t, p, want, "linked", 70_000)
		sameBytes(t, p+"-link", want)
		must(t, os.Remove(p))
		return p + "-link", want
	}},
	{"truncate down", func(t *testing.T, p string, want []byte) (string, []byte) {
		must(t, os.Truncate(p, 1_000_001))
		return p, want[:1_000_001]
	}},
	{"truncate down and up", func(t *testing.T, p string, want []byte) (string, []byte) {
		must(t, os.Truncate(p, 1_000_001))
		must(t, os.Truncate(p, 2_000_000))
		return p, append(want[:1_000_001:1_000_001], make([]byte, 999_999)...)
	}},
	{"truncate up", func(t *testing.T, p string, want []byte) (string, []byte) {
		must(t, os.Truncate(p, bigSize+50_000))
		return p, append(want, make([]byte, 50_000)...)
	}},
	{"truncate to nothing", func(t *testing.T, p string, want []byte) (string, []byte) {
		f, err := os.OpenFile(p, os.O_WRONLY|os.O_TRUNC, 0)
		must(t, err)
		must(t, f.Close())
		return p, nil
	}},
	{"write, cut, write", func(t *testing.T, p string, want []byte) (string, []byte) {
		want = writeAt(t, p, want, "first", 2_500_000)
		must(t, os.Truncate(p, 2_400_000))
		return p, writeAt(t, p, want[:2_400_000], "second", 2_500_000)
	}},
	{"punch", func(t *testing.T, p string, want []byte) (string, []byte) {
		fallocate(t, p, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 100_001, 300_000)
		clear(want[100_001:400_001])
		return p, want
	}},
	{"punch to the end", func(t *testing.T, p string, want []byte) (string, []byte) {
		fallocate(t, p, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 2_000_001, 2<<20)
		clear(want[2_000_001:])
		return p, want
	}},
	{"allocate", func(t *testing.T, p string, want []byte) (string, []byte) {
		fallocate(t, p, 0, bigSize-10_000, 100_000)
		return p, append(want, make([]byte, 90_000)...)
	}},
	{"shared mapping", func(t *testing.T, p string, want []byte) (string, []byte) {
		f, err := os.OpenFile(p, os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		m, err := unix.Mmap(int(f.Fd()), 0, bigSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		must(t, err)
		copy(m[500_000:], "mapped")
		copy(m[1_500_000:], "twice")
		must(t, unix.Msync(m, unix.MS_SYNC))
		must(t, unix.Munmap(m))
		return p, put(put(want, []byte("mapped"), 500_000), []byte("twice"), 1_500_000)
	}},
	{"direct", func(t *testing.T, p string, want []byte) (string, []byte) {
		f, err := os.OpenFile(p, os.O_RDWR|unix.O_DIRECT, 0)
		must(t, err)
		defer f.Close()
		b := aligned(8192)
		for i := range b {
			b[i] = 'd'
		}
		_, err = f.WriteAt(b, 8192*20)
		must(t, err)
		want = put(want, b, 8192*20)
		_, err = f.ReadAt(b, 8192*19)
		must(t, err)
		same(t, "direct read", b, want[8192*19:8192*20])
		return p, want
	}},
	{"copy_file_range", func(t *testing.T, p string, want []byte) (string, []byte) {
		f, err := os.OpenFile(p, os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		in, out := int64(10_000), int64(2_000_000)
		for n := 50_000; n > 0; {
			k, err := unix.CopyFileRange(int(f.Fd()), &in, int(f.Fd()), &out, n, 0)
			must(t, err)
			if k == 0 {
				t.Fatal("copied nothing")
			}
			n -= k
		}
		copy(want[2_000_000:2_050_000], bytes.Clone(want[10_000:60_000]))
		return p, want
	}},
	{"several writers", func(t *testing.T, p string, want []byte) (string, []byte) {
		var all sync.WaitGroup
		for w := range 8 {
			all.Go(func() {
				f, err := os.OpenFile(p, os.O_WRONLY, 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				for i := range 50 {
					if _, err := f.WriteAt([]byte{byte(w), byte(i), byte(w)}, int64(i*50_000+w*3)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		for w := range 8 {
			for i := range 50 {
				put(want, []byte{byte(w), byte(i), byte(w)}, i*50_000+w*3)
			}
		}
		return p, want
	}},
}

func fallocate(t testing.TB, path string, mode uint32, off, n int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	must(t, unix.Fallocate(int(f.Fd()), mode, off, n))
}

// TestByRange changes large lower files in every way, and looks at them at once, after a
// remount, when they are completed, and in the kernel's overlayfs.
func TestByRange(t *testing.T) {
	original := harness.Bytes(bigSize)
	for _, mode := range []string{"cached", "passthrough"} {
		t.Run(mode, func(t *testing.T) {
			if mode == "passthrough" {
				harness.NeedRoot(t)
			}
			harness.OnFilesystems(t, 512<<20, func(t *testing.T, dir string) {
				l := harness.NewLayersOn(t, dir, "f other something else")
				for i := range rangeCases {
					must(t, os.WriteFile(fmt.Sprintf("%s/f%d", l.Lowers[0], i), original, 0o644))
				}
				flags := append(slices.Clone(manual), "--mode", mode)
				m := l.Plyfs(t, flags...)
				paths := make([]string, len(rangeCases))
				wants := make([][]byte, len(rangeCases))
				check := func(t *testing.T, when string) {
					t.Helper()
					for i, c := range rangeCases {
						t.Run(c.name+" "+when, func(t *testing.T) { sameBytes(t, paths[i], wants[i]) })
					}
				}
				for i, c := range rangeCases {
					ok := t.Run(c.name, func(t *testing.T) {
						paths[i], wants[i] = c.do(t, fmt.Sprintf("%s/f%d", m.Dir, i), bytes.Clone(original))
						sameBytes(t, paths[i], wants[i])
					})
					if !ok {
						t.FailNow()
					}
				}
				m.Close(t)
				left := unfinished(t, l.Upper)
				if mode == "cached" && len(left) < len(rangeCases)/2 {
					t.Error("most files are copied whole: ", left)
				}
				if len(left) > 0 { // opening a file in passthrough mode completes it
					kernelRefuses(t, l)
				}
				m = l.Plyfs(t, flags...)
				check(t, "after a remount")
				if marked(l) != (len(left) > 0) {
					t.Errorf("%d files were unfinished, marked: %v", len(left), marked(l))
				}
				settle(t, m)
				check(t, "completed")
				if left := unfinished(t, l.Upper); len(left) > 0 || marked(l) {
					t.Errorf("after settling: unfinished: %v, marked: %v", left, marked(l))
				}
				m.Close(t)
				l.Kernel(t)
				check(t, "in the kernel")
			})
		})
	}
}

// TestFirstWriteIsSmall: what the first write of a large file costs, and what it says of
// itself.
func TestFirstWriteIsSmall(t *testing.T) {
	harness.OnFilesystems(t, 512<<20, func(t *testing.T, dir string) {
		l := harness.NewLayersOn(t, dir, "F big 8M")
		m := l.Plyfs(t, manual...)
		w := events(t, m)
		want := writeAt(t, m.Path("big"), harness.Bytes(8<<20), "!", 5<<20+1)
		evs := w.only(t, "/big")
		if len(evs) != 1 {
			t.Fatalf("events: %+v", evs)
		}
		ev := evs[0]
		if ev.Method != cow.MethodRange || ev.BytesCopied > 64<<10 || ev.BytesCopied == 0 || ev.UpperBytes > 256<<10 || ev.FileBytes != 8<<20 {
			t.Errorf("event: %+v", ev)
		}
		if n := used(t, l.Upper+"/big"); n > 256<<10 {
			t.Errorf("%d bytes used in the upper", n)
		}
		if n := used(t, m.Path("big")); n < 8<<20 {
			t.Errorf("the view shows %d bytes used: programs take it for a hole", n)
		}
		m.Close(t)
		m = l.Plyfs(t, manual...)
		if n := used(t, m.Path("big")); n < 8<<20 {
			t.Errorf("after a remount the view shows %d bytes used", n)
		}
		sameBytes(t, m.Path("big"), want)
	})
}

// TestSparseStaysSparse: 64 MiB of hole, one byte written, in each way of copying.
func TestSparseStaysSparse(t *testing.T) {
	harness.OnFilesystems(t, 512<<20, func(t *testing.T, dir string) {
		for _, threshold := range []string{"256K", "off"} {
			t.Run(threshold, func(t *testing.T) {
				l := harness.NewLayersOn(t, dir, "f sparse beginning")
				must(t, os.Truncate(l.Lowers[0]+"/sparse", 64<<20))
				m := l.Plyfs(t, "--threshold", threshold)
				writeAt(t, m.Path("sparse"), make([]byte, 64<<20), "!", 40<<20)
				settle(t, m)
				if n := used(t, m.Path("sparse")); n > 1<<20 {
					t.Errorf("the view shows %d bytes used", n)
				}
				m.Close(t)
				if n := used(t, l.Upper+"/sparse"); n > 1<<20 {
					t.Errorf("%d bytes used", n)
				}
				want := put(make([]byte, 64<<20), []byte("beginning"), 0)
				sameBytes(t, l.Upper+"/sparse", put(want, []byte("!"), 40<<20))
			})
		}
	})
}
