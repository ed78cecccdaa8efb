package lab

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/plyfs/mounts"
	"github.com/plyfs/plyfs/cow"
	"github.com/plyfs/plyfs/whiteout"
)

// state is what goals look at: the directories as they are, and the copy-ups there were.
type state struct {
	dir     string
	copyUps []CopyUp
}

func (s *state) path(name string) string { return filepath.Join(s.dir, name) }

// text returns what a file holds; "" if it cannot be read.
func (s *state) text(name string) string {
	b, _ := os.ReadFile(s.path(name))
	return string(b)
}

func (s *state) exists(name string) bool {
	_, err := os.Lstat(s.path(name))
	return err == nil
}

func (s *state) isFile(name string) bool {
	info, err := os.Lstat(s.path(name))
	return err == nil && info.Mode().IsRegular() && !s.isWhiteout(name)
}

// isGone says that a directory is there, and does not have the name.
func (s *state) isGone(dir, name string) bool {
	info, err := os.Stat(s.path(dir))
	return err == nil && info.IsDir() && !s.exists(dir+"/"+name)
}

func (s *state) stat(name string) *unix.Stat_t {
	st := new(unix.Stat_t)
	if unix.Lstat(s.path(name), st) != nil {
		return new(unix.Stat_t)
	}
	return st
}

// isWhiteout says that a name of a layer is a mark that deletes the name.
func (s *state) isWhiteout(name string) bool {
	st := s.stat(name)
	if whiteout.IsWhiteoutDev(st.Mode, unix.Major(st.Rdev), unix.Minor(st.Rdev)) {
		return true
	}
	if _, marked := s.mark(name, "whiteout"); marked {
		return true
	}
	return s.exists(filepath.Join(filepath.Dir(name), whiteout.AUFSWhiteout(filepath.Base(name))))
}

func (s *state) isOpaque(name string) bool {
	value, _ := s.mark(name, "opaque")
	return value == "y" || s.exists(name+"/"+whiteout.OpaqueName)
}

// mark returns the value of a mark of a file in a layer.
func (s *state) mark(name, key string) (value string, ok bool) {
	buf := make([]byte, 64<<10)
	for _, ns := range []whiteout.Namespace{whiteout.Trusted, whiteout.User} {
		if n, err := unix.Lgetxattr(s.path(name), ns.Name(key), buf); err == nil {
			return string(buf[:n]), true
		}
	}
	return "", false
}

// mounted returns the type of what is mounted on a directory; "" if nothing is.
func (s *state) mounted(name string) string {
	kind := ""
	table, _ := mounts.Table()
	for _, m := range table {
		if m.Point == s.path(name) {
			kind = m.Type
		}
	}
	return kind
}

// seen is the path of a file in the view of a mount, or what is left of it in the upper when that was unmounted.
func (s *state) seen(mount, upper, name string) string {
	if s.mounted(mount) == "" {
		return upper + "/" + name
	}
	return mount + "/" + name
}

// differing counts the bytes in which two files of one length differ; -1 if they have not one length.
func (s *state) differing(a, b string) int {
	one, two := s.text(a), s.text(b)
	if len(one) != len(two) {
		return -1
	}
	n := 0
	for i := range len(one) {
		if one[i] != two[i] {
			n++
		}
	}
	return n
}

// copied returns the copy-ups of a file, by its path in the view of a mount.
func (s *state) copied(mount, path string, causes ...cow.Cause) (list []CopyUp) {
	for _, ev := range s.copyUps {
		if ev.Mount != mount || ev.Path != path || ev.Err != "" {
			continue
		}
		for _, c := range causes {
			if ev.Cause == c {
				list = append(list, ev)
			}
		}
	}
	return list
}

// answered says that a file has a line with these words.
func (s *state) answered(name string, words ...string) bool {
	for line := range strings.Lines(s.text(name)) {
		if strings.Join(strings.Fields(line), " ") == strings.Join(words, " ") {
			return true
		}
	}
	return false
}

func contains(text string, words ...string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}
