package metasync

import (
	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

// Inspection is all that decides on the freshness of a path, without a look.
type Inspection struct {
	Lookup  namespace.Lookup
	Entry   Verdict
	Listing Verdict // of a directory
	Absent  Verdict // if the path is known not to exist
}

// Inspect judges what is held of p under the rule and asks nobody.
func (s *Syncer) Inspect(p freshet.Path, rule Rule) (Inspection, error) {
	c := call{at: s.opts.Clock.Elapsed()}
	s.reads(&c)
	l, err := s.State.Lookup(p)
	if err != nil {
		return Inspection{}, err
	}
	c.interval = rule(&l)
	in := Inspection{Lookup: l, Entry: s.judgeEntry(p, &l, c), Absent: s.judgeAbsent(&l, c)}
	if l.Virtual || (l.Found && l.Info.Type == freshet.TypeDirectory) {
		in.Listing = s.judgeListing(p, &l, c)
	}
	return in, nil
}

// SameContent reports whether a status names the content that is held, and the
// same metadata.
func SameContent(held *freshet.Info, got *freshet.Info) (content, meta bool) {
	if held.Type != got.Type {
		return false, false
	}
	if held.Type == freshet.TypeDirectory {
		return true, held.Owner == got.Owner && held.Group == got.Group && held.Mode == got.Mode
	}
	return held.Length == got.Length && held.Fingerprint.SameContent(got.Fingerprint), held.Fingerprint.SameMeta(got.Fingerprint)
}
