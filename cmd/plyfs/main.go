// Command plyfs mounts layered root filesystems and tells what happens in them.
//
// There is one file per subcommand and one table of them (command.go). What a
// subcommand does beyond reading its arguments and printing is done elsewhere: the
// union in package overlay, serving it in overlay/fusefs, the demo and the exercises
// in lab. A mount is served by
// a daemon, which is this program again (launch, daemon.go, serve.go); the other
// subcommands talk to it through extended attributes of the mount (control.go).
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/cmd/plyfs/cell"
	"github.com/plyfs/plyfs/cmd/plyfs/launch"
	"github.com/plyfs/plyfs/cmd/plyfs/text"
	"github.com/plyfs/plyfs/layer/store"
	"github.com/plyfs/plyfs/layer/store/userns"
)

// usageError is a fault in the command line, as opposed to one of doing it.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	cell.Init()
	err := userns.Init()
	if err == nil {
		err = dispatch(os.Args)
	}
	if err == nil || errors.Is(err, pflag.ErrHelp) {
		err = stdout.err
	}
	var command exitCode
	switch {
	case err == nil:
		return
	case errors.As(err, &command): // it has said what there is to say
		os.Exit(int(command))
	}
	text, code := oneLine(err.Error()), codeOf(err)
	fmt.Fprintln(os.Stderr, "plyfs: "+text)
	launch.Failed(code, text)
	os.Exit(code)
}

// codeOf is the exit code for an error.
func codeOf(err error) int {
	var own failedError
	if errors.As(err, &own) {
		return own.code
	}
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

// oneLine keeps what is printed of names and images in its line, see [text.OneLine].
func oneLine(s string) string { return text.OneLine(s) }

func dispatch(argv []string) error {
	if len(argv) == 0 {
		return usagef("no arguments at all, not even a name")
	}
	args := argv[1:]
	if launch.IsHelperName(argv[0]) {
		return mountHelper(args)
	}
	args, err := leadingRoot(args)
	switch {
	case err != nil:
		return err
	case len(args) == 0:
		printOverview(os.Stderr)
		return usagef("no command given")
	}
	switch args[0] {
	case keepName:
		return keep(args[1:])
	case packName:
		return pack(args[1:])
	case lookName:
		return look(args[1:])
	}
	if c := findCommand(args[0]); c != nil {
		return c.run(c, args[1:])
	}
	switch args[0] {
	case "-h", "--help":
		printOverview(stdout)
		return nil
	case "-V", "--version":
		return printVersion(false)
	}
	if wantsHelper(args) {
		return mountHelper(args)
	}
	return usagef("unknown command %q; plyfs help lists them", args[0])
}

// leadingRoot takes a --root before the command, where Podman has it, for the store of whatever command follows.
func leadingRoot(args []string) ([]string, error) {
	for len(args) > 0 {
		dir, found := strings.CutPrefix(args[0], "--root=")
		rest := args[1:]
		if args[0] == "--root" && len(rest) > 0 {
			dir, rest, found = rest[0], rest[1:], true
		}
		if args[0] == "--root" && !found || found && dir == "" {
			return nil, usagef("--root: want the directory of the store after it")
		}
		if !found {
			break
		}
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, err
		}
		if err := os.Setenv(store.RootVariable, abs); err != nil {
			return nil, err
		}
		args = rest
	}
	return args, nil
}
