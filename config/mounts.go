package config

import (
	"fmt"
	"maps"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// Change returns the mount as a change that makes it so; the file must have been
// validated.
func (m Mount) Change(origin string) (freshet.MountChange, error) {
	p, err := freshet.ParsePath(m.Path)
	if err != nil {
		return freshet.MountChange{}, err
	}
	level, err := freshet.ParseLevel(m.Consistency.Level)
	if err != nil {
		return freshet.MountChange{}, err
	}
	uri, ro, active := m.UFS, m.ReadOnly, m.Consistency.ActiveSync
	c := freshet.MountChange{Path: p, URI: &uri, Options: maps.Clone(m.Options), ReadOnly: &ro, Level: &level, ActiveSync: &active, Origin: origin}
	for _, f := range []struct {
		text string
		to   **freshet.Interval
	}{{m.Consistency.Interval, &c.Interval}, {m.Consistency.DegradedInterval, &c.DegradedInterval}} {
		if f.text == "" {
			continue
		}
		v, err := freshet.ParseInterval(f.text)
		if err != nil {
			return c, err
		}
		*f.to = &v
	}
	return c, nil
}

// Policy returns the rule as a policy; the file must have been validated.
func (r SyncRule) Policy(origin string) (freshet.SyncPolicy, error) {
	p, err := freshet.ParsePath(r.Path)
	if err != nil {
		return freshet.SyncPolicy{}, err
	}
	i, err := freshet.ParseInterval(r.Interval)
	return freshet.SyncPolicy{Path: p, Interval: i, Origin: origin}, err
}

func (f *File) checkMounts(p *problems, parser Parser) {
	seen := map[freshet.Path]bool{}
	for i, m := range f.Mounts {
		key := fmt.Sprintf("mounts[%d]", i)
		c, err := m.Change("config")
		if err != nil {
			p.add(key, "%v", err)
			continue
		}
		p.once(seen, key, c.Path)
		checkConsistency(p, key, m, c)
		if parser != nil {
			if _, err := parser.Parse(ufs.Spec{URI: m.UFS, Options: m.Options}); err != nil {
				p.add(key, "%v", err)
			}
		}
	}
}

func checkConsistency(p *problems, key string, m Mount, c freshet.MountChange) {
	switch *c.Level {
	case freshet.LevelBounded, freshet.LevelStrict:
		p.add(key+".consistency.level", "%q is not built yet; use \"invalidate\" or \"interval\"", m.Consistency.Level)
	case freshet.LevelInterval:
		if c.Interval == nil {
			p.add(key+".consistency.interval", "is required under level \"interval\"")
		}
	case freshet.LevelInvalidate:
	}
}
