package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/plyfs/plyfs/cmd/plyfs/keeper"
	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/store"
)

var commitCmd = command{
	name:  "commit",
	args:  "CONTAINER [NAME]",
	short: "make an image of a container's changes",
	long: `The writable layer becomes a further layer on the container's image. What is mounted
into the container (volumes, binds) is not part of it. The processes of a running
container stand still meanwhile, so that the image has one moment of it: what they had
written, as after a power cut, and not what they meant to write.`,
	run: runCommit,
}

func runCommit(c *command, args []string) error {
	f := c.flags()
	author := f.StringP("author", "a", "", "`who` made it")
	pause := f.BoolP("pause", "p", true, "stop the processes of a running container meanwhile")
	message := f.StringP("message", "m", "", "`what` changed")
	asJSON := f.Bool("json", false, "print JSON")
	root := storeFlag(f)
	if err := c.parse(f, args, 1, 2); err != nil {
		return err
	}
	if f.NArg() == 2 {
		if _, err := store.ParseName(f.Arg(1)); err != nil {
			return fmt.Errorf("commit %s: %w", f.Arg(0), err)
		}
	}
	s, err := openStore(*root)
	if err != nil {
		return err
	}
	box, err := s.Container(f.Arg(0))
	if err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	o := store.CommitOptions{Name: f.Arg(1), BaseName: box.ImageName, Author: *author, Comment: *message}
	var img *store.Image
	err = whileEnding(func() error {
		session, done, err := viewOf(s, box, keepShow)
		if err != nil {
			return err
		}
		defer done()
		changes := image.StreamLayer(func() (io.ReadCloser, error) { return packed(session, *pause) })
		img, err = s.Commit(ctx, box.Image, changes, o)
		return err
	})
	if err != nil {
		return interrupted(ctx, "commit "+box.Name, fmt.Errorf("commit %s: %w", box.Name, err))
	}
	if *asJSON {
		return printJSON(img)
	}
	fmt.Fprintln(stdout, img.ID)
	return nil
}

// viewOf returns a connection with the keeper of a container; one that does not run gets a keeper
// for that purpose, which only shows the view, until done.
func viewOf(s *store.Store, c *store.Container, purpose string) (session *keeper.Session, done func(), err error) {
	if st, err := s.State(c); err == nil && st.Status == store.Stopping {
		if err := waitGone(s, c); err != nil {
			return nil, nil, err
		}
	}
	if session, err = dialLive(s, c); err != nil {
		return nil, nil, err
	}
	if session != nil {
		return session, session.Close, nil
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	defer null.Close()
	if session, err = startKeeper(s, c, [3]*os.File{null, null, null}, purpose); err != nil {
		return nil, nil, err
	}
	if err := session.Started(); err != nil {
		session.Close()
		return nil, nil, err
	}
	return session, func() {
		session.Done()
		session.Close()
	}, nil
}

// archive is what a keeper packs. Its end is one only if the keeper says so.
type archive struct {
	*os.File
	session *keeper.Session
	begun   bool  // something was read
	end     error // once it was reached
}

func packed(session *keeper.Session, pause bool) (io.ReadCloser, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer write.Close()
	if err := session.Pack(write, pause); err != nil {
		read.Close()
		return nil, err
	}
	return &archive{File: read, session: session}, nil
}

func (a *archive) Read(b []byte) (int, error) {
	n, err := a.File.Read(b)
	a.begun = a.begun || n > 0
	if err != io.EOF {
		return n, err
	}
	if a.end == nil {
		_, a.end = a.session.Wait()
		var failure *keeper.Failure
		switch {
		case a.end == nil:
			a.end = io.EOF
		case a.begun && errors.As(a.end, &failure):
			a.end = errors.New(failure.Text) // that there may soon be another keeper is no reason to try again
		}
	}
	return n, a.end
}
