package rig

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is what a reader of results wants to know about where they come from.
type Machine struct {
	Time     time.Time         `json:"time"`
	Kernel   string            `json:"kernel"`
	CPU      string            `json:"cpu"`
	CPUs     int               `json:"cpus"`
	Memory   int64             `json:"memory_bytes"`
	GoVer    string            `json:"go"`
	Versions map[string]string `json:"versions"`
}

// Describe asks this machine, and each program of versions (a name and its
// command line) for its version.
func Describe(versions map[string][]string) Machine {
	m := Machine{Time: time.Now().UTC().Truncate(time.Second), GoVer: runtime.Version(), Versions: map[string]string{}}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) == nil {
		m.CPUs = set.Count()
	}
	m.Memory = field("/proc/meminfo", "MemTotal:") << 10
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			m.CPU = strings.TrimSpace(v)
			break
		}
	}
	for name, argv := range versions {
		out, _ := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		m.Versions[name] = versionLine(string(out))
	}
	return m
}

// versionLine returns the line of a program's answer that names its version. FUSE programs also print the version
// of fusermount, and complaints about mount options of their parents.
func versionLine(answer string) string {
	for line := range strings.Lines(answer) {
		if strings.Contains(strings.ToLower(line), "version") && !strings.Contains(line, "usermount") {
			return strings.TrimSpace(line)
		}
	}
	first, _, _ := strings.Cut(answer, "\n")
	return strings.TrimSpace(first)
}

// TouchMemory makes the host give this machine the memory that page caches
// will use: on a virtual machine the first use of a page is slow. It stops at
// a third of what is free.
func TouchMemory(bytes int64) {
	bytes = min(bytes, field("/proc/meminfo", "MemFree:")<<10/3)
	const step = 64 << 20
	var all [][]byte
	for ; bytes > 0; bytes -= step {
		b, err := unix.Mmap(-1, 0, step, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
		if err != nil {
			break
		}
		all = append(all, b)
	}
	for _, b := range all {
		unix.Munmap(b)
	}
}

// DropCaches empties the page, entry and inode caches of the whole machine,
// after writing back. It needs root.
func DropCaches() error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0)
}
