package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// lookup is [Store.Image] for those who hold the lock.
func (s *Store) lookup(ref string) (*Image, error) {
	n, damage, err := s.namesIfAny()
	if err != nil {
		return nil, err
	}
	id, asked, err := s.resolve(ref, n)
	if damage != nil {
		if errors.Is(err, ErrNotFound) {
			return nil, damage
		}
		s.tell(damage)
	}
	if err != nil {
		return nil, err
	}
	img, err := s.readImage(id, n)
	if err != nil {
		return nil, err
	}
	img.asked = asked
	return img, nil
}

// resolve returns the id of the image that ref means, and how to call it: by its full name, or by its short id.
func (s *Store) resolve(ref string, n names) (id, asked string, err error) {
	full, nameErr := ParseReference(ref)
	if nameErr == nil {
		if id, ok := n[full]; ok {
			return id, full, nil
		}
		if repo, digest := splitName(full); digest != "" {
			id, err := s.byDigest(repo, digest, n)
			return id, full, err
		}
	}
	hex := strings.TrimPrefix(ref, digestPrefix)
	if !prefixForm().MatchString(hex) {
		if nameErr != nil {
			return "", "", nameErr
		}
		return "", "", notFound(ref)
	}
	ids, err := s.imageIDs()
	if err != nil {
		return "", "", err
	}
	found := slices.DeleteFunc(ids, func(id string) bool { return !strings.HasPrefix(id, digestPrefix+hex) })
	switch len(found) {
	case 1:
		return found[0], ShortID(found[0]), nil
	case 0:
		return "", "", notFound(ref)
	}
	return "", "", fmt.Errorf("%d images have ids that begin with %s: give more of it", len(found), ref)
}

func notFound(ref string) error {
	return fmt.Errorf("no image %s (plyfs image ls lists them): %w", ref, ErrNotFound)
}

// byDigest finds the image of a repository with that digest. That it is of the repository says one of its names, or
// where it was pulled from: images that were pulled by digest had no name once.
func (s *Store) byDigest(repo, digest string, n names) (string, error) {
	ids, err := s.imageIDs()
	if err != nil {
		return "", err
	}
	var named, pulled []string
	for _, id := range ids {
		var rec imageRecord
		err := readRecord(s.imageDamage(id, n, s.imagePath(id, "image.json")), &rec)
		if s.leftOut(err) {
			continue
		}
		if err != nil {
			return "", err
		}
		var from, asked string
		if full, err := ParseReference(rec.Source); err == nil {
			from, asked = splitName(full)
		}
		switch known := digest == asked || slices.Contains(rec.digests(), digest); {
		case !known:
		case n.inRepository(id, repo):
			named = append(named, id)
		case from == repo:
			pulled = append(pulled, id)
		}
	}
	if len(named) == 0 {
		named = pulled
	}
	switch len(named) {
	case 0:
		return "", notFound(repo + "@" + digest)
	case 1:
		return named[0], nil
	}
	return "", fmt.Errorf("%d images are %s@%s, for several platforms: name one by its id", len(named), repo, digest)
}
