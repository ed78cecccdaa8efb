// Command todo keeps a list in /data: the small application of the note's story.
//
//	todo                   print the list
//	todo add TEXT          a further line
//	todo serve             the list by HTTP: GET reads it, POST adds the body; prints its address
//	todo cat FILE, todo ls DIR, todo write FILE TEXT
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

const list = "/data/list"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "todo:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 0:
		return show(os.Stdout, list)
	case len(args) > 1 && args[0] == "add":
		return add(strings.Join(args[1:], " "))
	case len(args) == 1 && args[0] == "serve":
		return serve()
	case len(args) == 2 && args[0] == "cat":
		return show(os.Stdout, args[1])
	case len(args) == 3 && args[0] == "write":
		return os.WriteFile(args[1], []byte(args[2]), 0o644)
	case len(args) == 2 && args[0] == "ls":
		entries, err := os.ReadDir(args[1])
		for _, e := range entries {
			fmt.Println(e.Name())
		}
		return err
	}
	return fmt.Errorf("what is %q?", args)
}

func show(to io.Writer, path string) error {
	b, err := os.ReadFile(path)
	if err == nil {
		_, err = to.Write(b)
	}
	return err
}

func add(text string) error {
	f, err := os.OpenFile(list, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, text)
	return err
}

// serve serves the list until it is asked to end.
func serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("http://%s/\n", l.Addr())
	go func() { _ = http.Serve(l, http.HandlerFunc(answer)) }()
	<-ctx.Done()
	return nil
}

func answer(w http.ResponseWriter, r *http.Request) {
	var err error
	if r.Method == http.MethodPost {
		var body []byte
		if body, err = io.ReadAll(r.Body); err == nil {
			err = add(string(body))
		}
	} else {
		err = show(w, list)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
