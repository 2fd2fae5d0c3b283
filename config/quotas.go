package config

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/freshet-io/freshet"
)

// QuotaRule limits what lies below a path; what is not given is not limited.
type QuotaRule struct {
	Path    string `yaml:"path"`
	Entries int64  `yaml:"entries"`
	Bytes   Size   `yaml:"bytes"`
}

// change returns the rule as a change, with the values checked.
func (r QuotaRule) change(origin string) (freshet.QuotaChange, error) {
	c := freshet.QuotaChange{MaxEntries: r.Entries, Origin: origin}
	var err error
	if c.Path, err = freshet.ParsePath(r.Path); err != nil {
		return c, err
	}
	if r.Bytes != "" {
		if c.MaxBytes, err = freshet.ParseSize(string(r.Bytes)); err != nil {
			return c, freshet.Errorf(freshet.KindInvalid, "check quota", c.Path, "bytes: %q is not a size such as \"2TiB\"", string(r.Bytes))
		}
	}
	return c, c.Normalize()
}

// QuotaChanges returns what the key quotas sets, in order of the paths; the file
// must have been validated.
func (f *File) QuotaChanges(origin string) ([]freshet.QuotaChange, error) {
	all := make([]freshet.QuotaChange, 0, len(f.Quotas))
	for _, r := range f.Quotas {
		c, err := r.change(origin)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b freshet.QuotaChange) int { return cmp.Compare(a.Path, b.Path) })
	return all, nil
}

func (f *File) checkQuotas(p *problems) {
	seen := map[freshet.Path]bool{}
	for i, r := range f.Quotas {
		key := fmt.Sprintf("quotas[%d]", i)
		c, err := r.change(freshet.OriginConfig)
		if err != nil {
			p.add(key, "%v", err)
			continue
		}
		p.once(seen, key, c.Path)
	}
}
