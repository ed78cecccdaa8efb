package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxLayers bounds the layers of an image: more than any engine makes (Docker stops at
// 127), and what a stack can have.
const maxLayers = 500

// Words are the words of a command. In JSON they may be one string instead of a list of one, as Docker reads it.
type Words []string

// UnmarshalJSON implements json.Unmarshaler.
func (w *Words) UnmarshalJSON(raw []byte) error {
	if raw[0] != '"' {
		return json.Unmarshal(raw, (*[]string)(w))
	}
	var one string
	err := json.Unmarshal(raw, &one)
	*w = Words{one}
	return err
}

// parseConfig reads an image's configuration and checks what is relied on.
func parseConfig(raw []byte) (*imageConfig, error) {
	var c imageConfig
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, err
	}
	if len(c.RootFS.DiffIDs) > maxLayers {
		return nil, fmt.Errorf("%d layers, more than %d", len(c.RootFS.DiffIDs), maxLayers)
	}
	for _, d := range c.RootFS.DiffIDs {
		if hex, ok := strings.CutPrefix(d, digestPrefix); !ok || !idForm().MatchString(hex) {
			return nil, fmt.Errorf("%q is no SHA-256 diff id", d)
		}
	}
	// Builders leave names without a value, and nothing at all: it means nothing.
	c.Config.Env = slices.DeleteFunc(c.Config.Env, func(e string) bool { return strings.IndexByte(e, '=') <= 0 })
	for _, list := range [][]string{c.Config.Env, c.Config.Entrypoint, c.Config.Cmd, {c.Config.User, c.Config.WorkingDir}} {
		for _, word := range list {
			if strings.IndexByte(word, 0) >= 0 {
				return nil, errors.New("a NUL in a variable, command, user or directory")
			}
		}
	}
	return &c, nil
}
