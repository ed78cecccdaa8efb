// Command todo keeps a list in /data: the small application of the note's story.
package main

import (
	"fmt"
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
	case len(args) > 1 && args[0] == "add":
		f, err := os.OpenFile(list, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = fmt.Fprintln(f, strings.Join(args[1:], " "))
		return err
	case len(args) == 2 && args[0] == "cat":
		b, err := os.ReadFile(args[1])
		fmt.Print(string(b))
		return err
	case len(args) == 3 && args[0] == "write":
		return os.WriteFile(args[1], []byte(args[2]), 0o644)
	case len(args) == 2 && args[0] == "ls":
		entries, err := os.ReadDir(args[1])
		for _, e := range entries {
			fmt.Println(e.Name())
		}
		return err
	}
	if len(args) == 1 && args[0] == "serve" {
		ask := make(chan os.Signal, 1)
		signal.Notify(ask, syscall.SIGTERM)
		<-ask
		return nil
	}
	b, err := os.ReadFile(list)
	fmt.Print(string(b))
	return err
}
