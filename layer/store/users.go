package store

// imageUsers returns, for each image id, the names of the containers made from it, and what may use any of them. The
// caller holds the lock.
func (s *Store) imageUsers() (map[string][]string, []*Damage, error) {
	list, unknown, err := s.containerRecords()
	users := map[string][]string{}
	for _, c := range list {
		users[c.Image] = append(users[c.Image], c.Name)
	}
	return users, unknown, err
}

// volumeUsers returns the names of the containers that use each volume, and what may use any of them. The caller holds
// the lock.
func (s *Store) volumeUsers() (map[string][]string, []*Damage, error) {
	list, unknown, err := s.containerRecords()
	users := map[string][]string{}
	for _, c := range list {
		seen := map[string]bool{}
		for _, m := range c.Mounts {
			if m.Type == VolumeMount && !seen[m.Source] {
				seen[m.Source] = true
				users[m.Source] = append(users[m.Source], c.Name)
			}
		}
	}
	return users, unknown, err
}

// usedLayers returns the names of the layers that images have. Of an image whose record is damaged these are all that it
// may have, by its configuration; if not even that can be read it may have any, and known is false. The caller
// holds the lock.
func (s *Store) usedLayers(n names) (used func(name string) bool, known bool, err error) {
	ids, err := s.imageIDs()
	if err != nil {
		return nil, false, err
	}
	known = true
	list := map[string]bool{}
	for _, id := range ids {
		img, err := s.readImage(id, n)
		if err == nil {
			for _, l := range img.Layers {
				list[l.name] = true
			}
			continue
		}
		if !s.leftOut(err) {
			return nil, false, err
		}
		if _, c, err := s.readConfig(id, n); err == nil {
			for _, d := range c.RootFS.DiffIDs {
				list[d] = true
			}
		} else {
			known = false
		}
	}
	return func(name string) bool { return list[name] || list[layerDigest(name)] }, known, nil
}
