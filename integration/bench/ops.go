package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// operations by name. Each prepares what it needs, and then calls the function
// it is given around the part to be timed.
var operations = map[string]func(r *request, timed func(func() error) error) error{
	"exec":     opExec,
	"stat":     eachName(opStat),
	"missing":  eachName(opMissing),
	"open":     eachName(opOpen),
	"openread": eachName(opOpenRead),
	"append":   eachName(opAppend),
	"chmod":    eachName(opChmod),
	"truncate": eachName(opTruncate),
	"list":     opList,
	"create":   opCreate,
	"mkdir":    opMkdir,
	"rename":   opRename,
	"unlink":   opUnlink,
	"write":    opWrite,
	"random":   opRandom,
	"read":     opRead,
	"mapread":  opMapRead,
}

func perform(r *request) (took time.Duration, err error) {
	op, ok := operations[r.Op]
	if !ok {
		return 0, errors.New("unknown operation")
	}
	err = op(r, func(f func() error) error {
		start := time.Now()
		err := f()
		took = time.Since(start)
		return err
	})
	return took, err
}

// opExec runs Argv in Dir and reads its output, as a pipe's other end would: tar
// and grep work less when they see /dev/null.
func opExec(r *request, timed func(func() error) error) error {
	clients := max(r.Clients, 1)
	return timed(func() error {
		return parallel(clients, func(int) error {
			var stderr strings.Builder
			cmd := exec.Command(r.Argv[0], r.Argv[1:]...)
			cmd.Dir = r.Dir + "/" + r.Sub
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				return err
			}
			if f, ok := out.(*os.File); ok {
				unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, 1<<20)
			}
			if err := cmd.Start(); err != nil {
				return err
			}
			buf := make([]byte, 256<<10)
			for err == nil {
				_, err = out.Read(buf)
			}
			if err != io.EOF {
				return err
			}
			err = cmd.Wait()
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == 1 && r.Argv[0] == "grep" {
				err = nil // found nothing, as expected
			}
			if err != nil {
				return fmt.Errorf("%s: %w: %s", r.Argv[0], err, strings.TrimSpace(stderr.String()))
			}
			return nil
		})
	})
}

// parallel calls f on n threads and returns the first error.
func parallel(n int, f func(client int) error) error {
	if n <= 1 {
		return f(0)
	}
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			errs[i] = f(i)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// eachName makes an operation that calls f for each name of r.Names (or for
// r.Sub alone), relative to a descriptor of r.Dir, the names shared out among the clients.
func eachName(f func(dir int, name string, r *request, buf []byte) error) func(*request, func(func() error) error) error {
	return func(r *request, timed func(func() error) error) error {
		names := []string{r.Sub}
		if r.Sub == "" {
			b, err := os.ReadFile(r.Names)
			if err != nil {
				return err
			}
			names = strings.Fields(string(b))
		}
		dir, err := unix.Open(r.Dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		clients := max(r.Clients, 1)
		return timed(func() error {
			return parallel(clients, func(client int) error {
				buf := make([]byte, 128<<10)
				for i := client; i < len(names); i += clients {
					if err := f(dir, names[i], r, buf); err != nil {
						return fmt.Errorf("%s: %w", names[i], err)
					}
				}
				return nil
			})
		})
	}
}

func opStat(dir int, name string, _ *request, _ []byte) error {
	var st unix.Stat_t
	return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
}

// opMissing asks for a name beside each file that is not there.
func opMissing(dir int, name string, _ *request, _ []byte) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name+".missing", &st, unix.AT_SYMLINK_NOFOLLOW); err != unix.ENOENT {
		return fmt.Errorf("a missing name gives: %w", err)
	}
	return nil
}

func opOpen(dir int, name string, _ *request, _ []byte) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func opOpenRead(dir int, name string, _ *request, buf []byte) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for {
		n, err := unix.Read(fd, buf)
		if err != nil {
			unix.Close(fd)
			return err
		}
		if n < len(buf) { // a short read of a regular file is its end
			return unix.Close(fd)
		}
	}
}

// opAppend adds one byte: on a lower file, a copy-up.
func opAppend(dir int, name string, _ *request, _ []byte) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte("+")); err != nil {
		unix.Close(fd)
		return err
	}
	return unix.Close(fd)
}

func opChmod(dir int, name string, _ *request, _ []byte) error {
	return unix.Fchmodat(dir, name, 0o600, 0)
}

func opTruncate(dir int, name string, _ *request, _ []byte) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_TRUNC|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// opList reads a directory N times, names only.
func opList(r *request, timed func(func() error) error) error {
	buf := make([]byte, 64<<10)
	return timed(func() error {
		for range max(r.N, 1) {
			fd, err := unix.Open(r.Dir+"/"+r.Sub, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			n := 1
			for n > 0 && err == nil {
				n, err = unix.Getdents(fd, buf)
			}
			unix.Close(fd)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// perFile shares N calls of f out among the clients; each client has a directory
// of its own below Sub, made beforehand, as clients of a real filesystem mostly have.
func perFile(r *request, timed func(func() error) error, f func(dir, i int) error) error {
	clients := max(r.Clients, 1)
	dirs := make([]int, clients)
	for c := range dirs {
		path := fmt.Sprintf("%s/%s%d", r.Dir, r.Sub, c)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		dirs[c] = fd
	}
	return timed(func() error {
		return parallel(clients, func(c int) error {
			for i := c; i < r.N; i += clients {
				if err := f(dirs[c], i); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func opCreate(r *request, timed func(func() error) error) error {
	data := make([]byte, r.Size)
	for i := range data {
		data[i] = byte('a' + i%26)
	}
	return perFile(r, timed, func(dir, i int) error {
		fd, err := unix.Openat(dir, fmt.Sprintf("file-%d", i), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		if _, err := unix.Write(fd, data); err != nil {
			unix.Close(fd)
			return err
		}
		return unix.Close(fd)
	})
}

func opMkdir(r *request, timed func(func() error) error) error {
	return perFile(r, timed, func(dir, i int) error {
		return unix.Mkdirat(dir, fmt.Sprintf("dir-%d", i), 0o755)
	})
}

// opRename and opUnlink work on what opCreate made.
func opRename(r *request, timed func(func() error) error) error {
	return perFile(r, timed, func(dir, i int) error {
		return unix.Renameat(dir, fmt.Sprintf("file-%d", i), dir, fmt.Sprintf("moved-%d", i))
	})
}

func opUnlink(r *request, timed func(func() error) error) error {
	return perFile(r, timed, func(dir, i int) error {
		return unix.Unlinkat(dir, fmt.Sprintf("moved-%d", i), 0)
	})
}
