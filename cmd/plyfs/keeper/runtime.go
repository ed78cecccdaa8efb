package keeper

import (
	"fmt"
	"os/exec"
)

// CheckRuntime says what is wrong with the name of a runtime; "" is plyfs itself.
func CheckRuntime(name string) error {
	if name == "" {
		return nil
	}
	if _, err := exec.LookPath(name); err != nil {
		return fmt.Errorf("runtime %s: %w", name, err)
	}
	return nil
}

// NewRuntime returns the runtime of that name for the container with the given directory and
// id.
func NewRuntime(name, dir, id string) (Runtime, error) {
	if name == "" {
		return &Native{}, nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("runtime %s: %w", name, err)
	}
	return newOCI(path, dir, id)
}
