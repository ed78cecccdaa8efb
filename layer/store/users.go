package store

import (
	"errors"
	"fmt"
	"os"
)

// containerRef is what images need to know of containers/NAME/container.json.
type containerRef struct {
	Image string `json:"image"` // the image's id
}

// imageUsers returns, for each image id, the names of the containers made from it. The
// caller holds the lock. A record that cannot be read is an error: what it uses
// must not be removed.
func (s *Store) imageUsers() (map[string][]string, error) {
	entries, err := os.ReadDir(s.Path("containers"))
	if err != nil {
		return nil, err
	}
	users := map[string][]string{}
	for _, e := range entries {
		var ref containerRef
		err := ReadJSON(s.Path("containers", e.Name(), "container.json"), &ref)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("container %s: %w", e.Name(), err)
		}
		users[ref.Image] = append(users[ref.Image], e.Name())
	}
	return users, nil
}
