package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"

	"golang.org/x/sys/unix"
)

// openClients opens Sub once per client, with the client's number after it when
// flags create it.
func openClients(r *request, flags int) (fds []int, closeAll func() error, err error) {
	closeAll = func() error {
		var errs []error
		for _, fd := range fds {
			errs = append(errs, unix.Close(fd))
		}
		return errors.Join(errs...)
	}
	for c := range max(r.Clients, 1) {
		path := r.Dir + "/" + r.Sub
		if flags&unix.O_CREAT != 0 {
			path = fmt.Sprintf("%s%d", path, c)
		}
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		fds = append(fds, fd)
	}
	return fds, closeAll, nil
}

// opWrite writes Size bytes in pieces to a new file, closed (and synced) within the time.
func opWrite(r *request, timed func(func() error) error) error {
	piece := filled(r.Piece)
	return timed(func() error {
		fds, closeAll, err := openClients(r, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
		if err != nil {
			return err
		}
		err = parallel(len(fds), func(c int) error {
			for done := int64(0); done < r.Size/int64(len(fds)); done += r.Piece {
				if _, err := unix.Write(fds[c], piece); err != nil {
					return err
				}
			}
			if r.Sync {
				return unix.Fsync(fds[c])
			}
			return nil
		})
		return errors.Join(err, closeAll())
	})
}

// opRandom reads (or, with Sync set, writes and at last syncs) N pieces at random places of the first Size bytes of Sub.
func opRandom(r *request, timed func(func() error) error) error {
	flags := unix.O_RDONLY
	if r.Sync {
		flags = unix.O_RDWR
	}
	return timed(func() error {
		fds, closeAll, err := openClients(r, flags)
		if err != nil {
			return err
		}
		err = parallel(len(fds), func(c int) error {
			rnd := rand.New(rand.NewPCG(uint64(c), 1))
			buf := filled(r.Piece)
			for range r.N / len(fds) {
				at := rnd.Int64N(r.Size/r.Piece) * r.Piece
				var err error
				if r.Sync {
					_, err = unix.Pwrite(fds[c], buf, at)
				} else {
					_, err = unix.Pread(fds[c], buf, at)
				}
				if err != nil {
					return err
				}
			}
			if r.Sync {
				return unix.Fsync(fds[c])
			}
			return nil
		})
		return errors.Join(err, closeAll())
	})
}

// opRead reads Sub from beginning to end, each client its share of it.
func opRead(r *request, timed func(func() error) error) error {
	return timed(func() error {
		fds, closeAll, err := openClients(r, unix.O_RDONLY)
		if err != nil {
			return err
		}
		err = parallel(len(fds), func(c int) error {
			buf := filled(r.Piece)
			share := r.Size / int64(len(fds))
			for done := int64(0); done < share; {
				n, err := unix.Pread(fds[c], buf, int64(c)*share+done)
				if err != nil {
					return err
				}
				if n == 0 {
					return fmt.Errorf("ends after %d of %d bytes", done, share)
				}
				done += int64(n)
			}
			return nil
		})
		return errors.Join(err, closeAll())
	})
}

// opMapRead touches each page of a mapping of Sub.
func opMapRead(r *request, timed func(func() error) error) error {
	return timed(func() error {
		fds, closeAll, err := openClients(r, unix.O_RDONLY)
		if err != nil {
			return err
		}
		m, err := unix.Mmap(fds[0], 0, int(r.Size), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return errors.Join(err, closeAll())
		}
		var sum byte
		for i := 0; i < len(m); i += 4096 {
			sum += m[i]
		}
		runtime.KeepAlive(sum)
		return errors.Join(err, unix.Munmap(m), closeAll())
	})
}

// filled returns n bytes that are not zero.
func filled(n int64) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(1 + i%251)
	}
	return b
}
