package sim_test

import (
	"slices"
	"strings"
	"time"

	"github.com/freshet-io/freshet"
)

// This file knows what clients were promised of files that are not in the storage yet:
// which version each site must show of a key, and which ones it may. It knows that from
// what clients asked for and were told, and from the storage, never from a cluster.

// kept reports whether an attempt is a write that stays on nodes at first.
func (a *attempt) kept() bool {
	return a.what == "write" && (a.write == freshet.MustCache || a.write == freshet.AsyncThrough)
}

// moves reports whether an attempt changes which version is at a key.
func (a *attempt) moves() bool { return a.what != "chmod" && a.what != "mkdir" }

// source returns the key from which a rename brings what is at key then.
func (a *attempt) source(key string) (string, bool) {
	switch {
	case a.key2 == "":
		return "", false
	case key == a.key2 || a.tree && covers(a.key2, key):
		return a.key + strings.TrimPrefix(key, a.key2), true
	}
	return "", false
}

// takesFrom reports whether an attempt takes away what is at key and puts nothing there.
func (a *attempt) takesFrom(key string) bool {
	_, brings := a.source(key)
	return a.what != "write" && !brings
}

// settled returns since when nothing more comes of an attempt: when its client was told,
// or when all was quiet after that. Held with mu.
func (h *history) settled(a *attempt) (time.Time, bool) {
	switch {
	case a.outcome == running:
		return time.Time{}, false
	case a.outcome == acked || a.denied():
		return a.ended, true
	}
	for _, q := range h.quiets {
		if !q.Before(a.ended) {
			return q, true
		}
	}
	return time.Time{}, false
}

// calm notes that nothing is on its way any more.
func (h *history) calm() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.quiets = append(h.quiets, time.Now())
}

// dropped reports whether all that was not in the storage was given up by force, or may
// have been, since a moment: the mount was removed, or the cluster made anew.
func (s *site) dropped(since time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropping > 0 || s.drop.After(since)
}

// giveUp begins what drops all that is not in the storage; it is over when end is called.
func (s *site) giveUp() (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropping++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.dropping--
		s.drop = time.Now()
	}
}

// carried returns the write whose version a site must show at a key all the time from..to,
// unless the storage has got it meanwhile, and what brought it to the key; nil if that is
// not certain. but, if not nil, is an attempt that is not asked about. Held with mu.
func (h *history) carried(s *site, key string, from, to time.Time, but *attempt) (write, brought *attempt) {
	var last *attempt
	all := h.at(s, key)
	for _, a := range all {
		if a != but && !a.began.After(to) && !a.denied() {
			last = a // they are in the order of their beginnings
		}
	}
	if last == nil || last.outcome != acked || !last.ended.Before(from) || s.dropped(last.began) {
		return nil, nil
	}
	for _, a := range all {
		if a == last || a == but || a.denied() || a.began.After(to) {
			continue
		}
		if end, ok := h.settled(a); !ok || !end.Before(last.began) {
			return nil, nil
		}
	}
	if last.kept() {
		return last, last
	}
	src, ok := last.source(key)
	if !ok || last.tree && covers(last.key, last.key2) {
		return nil, nil
	}
	write, _ = h.carried(s, src, last.began, last.ended, last)
	if write == nil {
		return nil, nil
	}
	if _, ok := h.w.bucket.changed(src, write.began, write.version); ok {
		return nil, nil // the storage had it at the source: others may have changed it there
	}
	return write, last
}

// glance collects versions that were on their way to the storage or not in it, and that a
// site may show.
type glance struct {
	h    *history
	s    *site
	ends func(z *attempt, key string) bool // surely takes a version away from a key
	out  map[int]bool
	path []*attempt // renames that are being followed
}

// at adds those of a key at some moment from..to. The history is held.
func (g *glance) at(key string, from, to time.Time) {
	all := g.h.at(g.s, key)
	for _, a := range all {
		if a.began.After(to) || a.denied() {
			continue
		}
		src, brings := a.source(key)
		if !a.kept() && !brings {
			continue
		}
		if since, ok := g.h.settled(a); ok && g.over(key, all, a, since, from) {
			continue
		}
		if a.kept() {
			g.out[a.version] = true
			continue
		}
		until := a.ended
		if a.outcome == running || until.After(to) {
			until = to
		}
		if src != key && a.began.Before(to) && !slices.Contains(g.path, a) { // each brings a version once
			g.path = append(g.path, a)
			g.at(src, a.began, until)
			g.path = g.path[:len(g.path)-1]
		}
	}
}

// over reports whether what an attempt brought, which was settled then, was surely taken
// away again before a moment.
func (g *glance) over(key string, all []*attempt, brought *attempt, since, before time.Time) bool {
	for _, z := range all {
		if z != brought && z.outcome == acked && z.began.After(since) && z.ended.Before(before) && g.ends(z, key) {
			return true
		}
	}
	return false
}

// at returns the attempts of a site that may have changed which version is at a key.
// Held with mu.
func (h *history) at(s *site, key string) []*attempt {
	if h.index == nil {
		h.index = map[*site]map[string][]*attempt{}
	}
	if h.index[s] == nil {
		h.index[s] = map[string][]*attempt{}
	}
	if all, ok := h.index[s][key]; ok {
		return all
	}
	var all []*attempt
	for _, a := range h.attempts {
		if a.site == s && a.moves() && a.covers(key) {
			all = append(all, a)
		}
	}
	h.index[s][key] = all
	return all
}

// indexed adds a new attempt to what was indexed. Held with mu.
func (h *history) indexed(a *attempt) {
	for key, all := range h.index[a.site] {
		if a.moves() && a.covers(key) {
			h.index[a.site][key] = append(all, a)
		}
	}
}

// allowed returns the versions that a site may show of a key from..to, 0 for nothing;
// since is how far back it may go in what the storage held.
func (h *history) allowed(s *site, key string, since, from, to time.Time) map[int]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w, brought := h.carried(s, key, from, to, nil); w != nil {
		if at, ok := h.w.bucket.changed(key, brought.began, w.version); ok && !at.After(to) {
			may := h.w.bucket.during(key, later(since, at), to)
			may[w.version] = true
			return may
		}
		return map[int]bool{w.version: true}
	}
	may := h.w.bucket.during(key, since, to)
	(&glance{h: h, s: s, ends: func(*attempt, string) bool { return true }, out: may}).at(key, from, to)
	return may
}

// mayLand reports whether a version that was not in the storage may get there: it was
// not removed, taken to another key or replaced in the storage, and the client told so, before.
func (h *history) mayLand(w *attempt, key string, at time.Time) bool {
	may := map[int]bool{}
	(&glance{h: h, s: w.site, ends: func(z *attempt, key string) bool {
		return z.takesFrom(key) || z.what == "write" && !z.kept()
	}, out: may}).at(key, at, at)
	return may[w.version]
}

// mayMoveKept reports whether what a rename moved may have been a file that was not in the
// storage.
func (h *history) mayMoveKept(a *attempt) bool {
	may := map[int]bool{}
	(&glance{h: h, s: a.site, ends: func(*attempt, string) bool { return true }, out: may, path: []*attempt{a}}).at(a.key, a.began, a.ended)
	return len(may) > 0
}

// owed returns the write whose version a site must have at a key now, and that the storage
// never had there.
func (h *history) owed(s *site, key string) *attempt {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	w, brought := h.carried(s, key, now, now, nil)
	if w == nil {
		return nil
	}
	if _, ok := h.w.bucket.changed(key, brought.began, w.version); ok {
		return nil
	}
	return w
}

// writeOf returns the attempt that wrote a version of a file ID in a site, nil if its
// client was not told that.
func (h *history) writeOf(s *site, file freshet.FileID) *attempt {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.attempts {
		if a.site == s && a.kept() && a.file == file && a.outcome == acked {
			return a
		}
	}
	return nil
}
