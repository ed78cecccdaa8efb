package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/layer/store"
	"github.com/plyfs/plyfs/layer/store/userns"
)

// storeFlag adds --root to f.
func storeFlag(f *pflag.FlagSet) *string {
	return f.String("root", "", "`dir`ectory of the store (default: $PLYFS_ROOT, /var/lib/plyfs as root, else in ~/.local/share)")
}

// openStore opens the store, for an ordinary user after it has entered a user namespace:
// what is before it in a command happens twice.
func openStore(root string) (*store.Store, error) {
	if err := userns.Enter(); err != nil {
		return nil, err
	}
	if root == "" {
		var err error
		if root, err = store.DefaultRoot(userns.Rootless()); err != nil {
			return nil, err
		}
	}
	s, err := store.Open(root)
	if err == nil {
		s.OnDamage(func(d *store.Damage) { fmt.Fprintln(os.Stderr, "plyfs: warning: "+oneLine(d.Error())) })
	}
	return s, err
}

// eachName runs f for every name and says what went wrong for each; the error is for all of
// them.
func eachName(names []string, what string, f func(name string) error) error {
	failed := 0
	for _, name := range names {
		if err := f(name); err != nil {
			if len(names) == 1 {
				return err
			}
			if code := exitCode(0); !errors.As(err, &code) { // else it was said
				fmt.Fprintln(os.Stderr, "plyfs: "+oneLine(err.Error()))
			}
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%s: %d of %d failed", what, failed, len(names))
	}
	return nil
}
