package namespace

import "github.com/freshet-io/freshet"

// Newest returns the newest index at which p, or anything below it in whatever
// mount, may have been marked; at least 1. It may name one at which only
// something near p was marked.
func (s *State) Newest(p freshet.Path) (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.failed != nil {
		return 0, s.failed
	}
	newest := uint64(1)
	if r := s.resolve(p); r.mount != nil {
		n, err := s.newestAt(r.mount, r.key)
		if err != nil {
			return 0, corrupt("lookup", p, err)
		}
		newest = max(newest, n)
	}
	for _, m := range s.mounts {
		if m.Path == p || !p.Contains(m.Path) {
			continue
		}
		n, err := s.newestAt(m, "")
		if err != nil {
			return 0, corrupt("lookup", p, err)
		}
		newest = max(newest, n)
	}
	return newest, nil
}

func (s *State) newestAt(m *mount, key string) (uint64, error) {
	c := s.chain()
	defer s.chains.Put(c)
	if err := s.walk(m, key, c); err != nil {
		return 0, err
	}
	return max(s.need(m, key, c), c.last().newest()), nil
}
