package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/config"
)

// planQuotas compares the quotas of the file with those that are set; with prune,
// what an earlier apply set and the file does not name is removed.
func planQuotas(f *config.File, have []freshet.Quota, prune bool) ([]step, error) {
	held := map[freshet.Path]freshet.Quota{}
	for _, q := range have {
		held[q.Path] = q
	}
	wanted, err := f.QuotaChanges(freshet.OriginApply)
	if err != nil {
		return nil, err
	}
	var steps []step
	for _, c := range wanted {
		old, exists := held[c.Path]
		delete(held, c.Path)
		was, is := limitsText(old.MaxEntries, old.MaxBytes), limitsText(c.MaxEntries, c.MaxBytes)
		st := step{
			Action: "add", What: "quota", Path: string(c.Path), Detail: is,
			do: func(ctx context.Context, s *session) error { _, err := s.coord.SetQuota(ctx, c); return err },
		}
		switch {
		case exists && old.MaxEntries == c.MaxEntries && old.MaxBytes == c.MaxBytes:
			continue
		case exists:
			st.Action, st.Detail = "update", was+" -> "+is
		}
		steps = append(steps, st)
	}
	for p, q := range held {
		if !prune || q.Origin != freshet.OriginApply {
			continue
		}
		steps = append(steps, step{
			Action: "remove", What: "quota", Path: string(p), Detail: limitsText(q.MaxEntries, q.MaxBytes),
			do: func(ctx context.Context, s *session) error {
				_, err := s.coord.RemoveQuota(ctx, freshet.QuotaRemoval{Path: p})
				return err
			},
		})
	}
	slices.SortStableFunc(steps, func(x, y step) int { return strings.Compare(x.Path, y.Path) })
	return steps, nil
}

// limitsText says what a quota allows.
func limitsText(entries, bytes int64) string {
	var parts []string
	if entries > 0 {
		parts = append(parts, "entries: "+limitText(entries, false))
	}
	if bytes > 0 {
		parts = append(parts, "bytes: "+freshet.FormatSize(bytes))
	}
	return strings.Join(parts, ", ")
}
