package store

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
)

// The grammar of image names is that of the registries (distribution/reference): an
// optional host, path components, and a tag.
//
// The expressions are compiled when first needed: every start of plyfs would pay for them, and most
// of its commands, a mount above all, have no use for them.
var (
	hostForm      = form(`^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*(?::[0-9]+)?$|^\[[a-fA-F0-9:]+\](?::[0-9]+)?$`)
	componentForm = form(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$`)
	tagForm       = form(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	idForm        = form(`^[0-9a-f]{64}$`)
	prefixForm    = form(`^[0-9a-f]{4,64}$`)
)

func form(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

const maxName = 255 // of a name without its tag, as in the registries

// ParseName checks the name of an image and returns its full form: with a tag (latest if there is
// none), and without the parts that docker.io/library/ stands for.
func ParseName(name string) (string, error) {
	bad := func(why string) (string, error) { return "", fmt.Errorf("%q is no name for an image: %s", name, why) }
	switch {
	case strings.Contains(name, "@"):
		return bad("a digest is what an image has, and not given to it")
	case idForm().MatchString(name), strings.HasPrefix(name, digestPrefix):
		return bad("that is how ids look")
	}
	repo, tag := name, "latest"
	if i := strings.LastIndexByte(name, ':'); i >= 0 && !strings.Contains(name[i:], "/") {
		repo, tag = name[:i], name[i+1:]
		if !tagForm().MatchString(tag) {
			return bad("a tag has letters, digits, dots, dashes and underscores, 128 at most")
		}
	}
	for _, p := range []string{"docker.io/", "index.docker.io/"} {
		if rest, ok := strings.CutPrefix(repo, p); ok {
			repo = rest
			if short, ok := strings.CutPrefix(repo, "library/"); ok && !strings.Contains(short, "/") {
				repo = short
			}
			if hasHost(strings.Split(repo, "/")) { // without docker.io it would be elsewhere
				repo = "docker.io/" + repo
			}
			break
		}
	}
	if repo == "" || len(repo) > maxName {
		return bad("too short or too long")
	}
	parts := strings.Split(repo, "/")
	if hasHost(parts) {
		if !hostForm().MatchString(parts[0]) {
			return bad("its first part is no host")
		}
		parts = parts[1:]
	}
	for _, p := range parts {
		if !componentForm().MatchString(p) {
			return bad("a name has lower-case letters and digits, between them dots, dashes and underscores, and slashes")
		}
	}
	return repo + ":" + tag, nil
}

// ParseReference checks what an image is called by: a name as for [ParseName], or one with a digest,
// NAME@sha256:HEX. In NAME:TAG@sha256:HEX the tag says nothing, as with Docker, and is not in the full form.
func ParseReference(ref string) (string, error) {
	name, digest, ok := strings.Cut(ref, "@")
	if !ok {
		return ParseName(ref)
	}
	if hex, ok := strings.CutPrefix(digest, digestPrefix); !ok || !idForm().MatchString(hex) {
		return "", fmt.Errorf("%q is no name for an image: after the @ comes sha256: and 64 hexadecimal digits", ref)
	}
	full, err := ParseName(name)
	if err != nil {
		return "", err
	}
	repo, _ := splitName(full)
	return repo + "@" + digest, nil
}

// splitName takes a name in full form apart. The digest of one with a tag is "".
func splitName(full string) (repo, digest string) {
	if repo, digest, ok := strings.Cut(full, "@"); ok {
		return repo, digest
	}
	return full[:max(0, strings.LastIndexByte(full, ':'))], ""
}

// hasHost reports whether the first part of a name is a host, by Docker's rule.
func hasHost(parts []string) bool {
	return len(parts) > 1 && (strings.ContainsAny(parts[0], ".:") || parts[0] == "localhost" || strings.ToLower(parts[0]) != parts[0])
}

// names is images/names.json: the id each name means, in the full form of [ParseReference].
type names map[string]string

func (s *Store) readNames() (names, error) {
	n := names{}
	path := s.Path("images", "names.json")
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return n, nil
	}
	err := readRecord(Damage{Kind: "names", Path: path, Help: "move it away; images keep their ids, and plyfs image tag names them again"}, &n)
	if n == nil { // null is JSON, too
		n = names{}
	}
	return n, err
}

// namesIfAny is readNames for those who go on without. Damage is returned beside no names.
func (s *Store) namesIfAny() (names, *Damage, error) {
	n, err := s.readNames()
	if d := damageOf(err); d != nil {
		return names{}, d, nil
	}
	return n, nil, err
}

func (s *Store) writeNames(n names) error {
	return WriteJSON(s.Path("images", "names.json"), n)
}

// inRepository reports whether the image id has a name in that repository.
func (n names) inRepository(id, repo string) bool {
	for name, i := range n {
		if r, _ := splitName(name); i == id && r == repo {
			return true
		}
	}
	return false
}

// of returns the names that mean the image id, sorted.
func (n names) of(id string) []string {
	var out []string
	for name, i := range n {
		if i == id {
			out = append(out, name)
		}
	}
	sortNames(out)
	return out
}
