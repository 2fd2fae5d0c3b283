package namespace

import (
	"testing"
	"time"

	"github.com/freshet-io/freshet"
)

// TestPoliciesOfTheFirstStatesAreSyncIntervals reads a row in the form that had a
// sync interval and nothing else, and holds that a policy of that alone is still
// written so.
func TestPoliciesOfTheFirstStatesAreSyncIntervals(t *testing.T) {
	t.Parallel()
	type first struct {
		Path     freshet.Path     `codec:"p"`
		Interval freshet.Interval `codec:"i"`
		Origin   string           `codec:"o"`
		SetAt    time.Time        `codec:"t"`
	}
	old := first{Path: "/m/d", Interval: 5e9, Origin: "operator", SetAt: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)}
	var before, now rowEncoder
	row, err := before.encode(&old)
	if err != nil {
		t.Fatal(err)
	}
	x := newIndex()
	if err := x.readPolicy(nil, row); err != nil {
		t.Fatal(err)
	}
	p := x.policies["/m/d"]
	if p.Bare || p.Interval != 5e9 || p.Origin != "operator" || !p.SetAt.Equal(old.SetAt) || len(p.Settings) != 0 {
		t.Errorf("read as %+v", p)
	}
	if r := x.resolve("/m/d/f"); r.interval != 5e9 || r.rule.Path != "/m/d" || r.policy.TTL != freshet.Never {
		t.Errorf("applies as %+v", r)
	}
	again, err := now.encode(&p)
	if err != nil || string(again) != string(row) {
		t.Errorf("written as %q, was %q (%v)", again, row, err)
	}
}
