package rpc_test

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

func (f *fake) Check(_ context.Context, q freshet.CheckQuery, report func(freshet.CheckReport) error) error {
	for range 2 {
		r, err := one[freshet.CheckReport](f, "Check", q)
		if err == nil {
			err = report(r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func TestCheckTellsEveryDifferenceAndStopsWhenToldTo(t *testing.T) {
	t.Parallel()
	f := &fake{}
	c := dial(t, rpc.DialOptions{NoRetry: true}, start(t, f, nil, rpc.ServerOptions{}).addr)
	q := freshet.CheckQuery{Path: "/a b", Recursive: true, Repair: true, All: true, Limit: 7}
	var got []freshet.CheckReport
	if err := c.Check(t.Context(), q, func(r freshet.CheckReport) error { got = append(got, r); return nil }); err != nil || len(got) != 2 {
		t.Fatalf("%d reports, %v", len(got), err)
	}
	last := f.last()
	if !reflect.DeepEqual(last.args, []any{q}) {
		t.Errorf("asked %+v, want %+v", last.args, q)
	}
	want, _ := last.answer[0].(freshet.CheckReport)
	for _, info := range []*freshet.Info{want.Difference.Cached, want.Difference.Storage} {
		info.Fingerprint = got[1].Difference.Cached.Fingerprint // of made-up parts: what they become is the matter of other tests
	}
	got[1].Difference.Storage.Fingerprint = got[1].Difference.Cached.Fingerprint
	if !reflect.DeepEqual(got[1], want) {
		t.Errorf("got\n%+v %+v\nwant\n%+v %+v", got[1], got[1].Difference, want, want.Difference)
	}
	stop := freshet.Errorf(freshet.KindExhausted, "report", "", "enough")
	if err := c.Check(t.Context(), freshet.CheckQuery{Path: "/"}, func(freshet.CheckReport) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("after a failed report: %v", err)
	}
	if err := c.Check(t.Context(), freshet.CheckQuery{Path: "/", Limit: -1}, nil); !freshet.IsKind(err, freshet.KindInvalid) {
		t.Errorf("a negative limit: %v", err)
	}
}

// half tells one thing and then leads no more.
type half struct{ told bool }

func (h half) Check(_ context.Context, _ freshet.CheckQuery, report func(freshet.CheckReport) error) error {
	if h.told {
		if err := report(freshet.CheckReport{}); err != nil {
			return err
		}
	}
	return freshet.Errorf(freshet.KindNotLeader, "check", "", "not any more")
}

func TestACheckIsForwardedOnlyBeforeItToldAnything(t *testing.T) {
	t.Parallel()
	f := &fake{}
	leader := start(t, f, nil, rpc.ServerOptions{})
	conns := rpc.NewConns(rpc.DialOptions{NoRetry: true})
	t.Cleanup(func() { _ = conns.Close() })
	forward := rpc.NewForwarder(leaderAt(leader.addr), conns)
	n := 0
	count := func(freshet.CheckReport) error { n++; return nil }
	if err := rpc.ForwardedChecker(half{}, forward).Check(t.Context(), freshet.CheckQuery{Path: "/"}, count); err != nil || n != 2 {
		t.Errorf("%d reports of the leader, %v", n, err)
	}
	n = 0
	err := rpc.ForwardedChecker(half{told: true}, forward).Check(t.Context(), freshet.CheckQuery{Path: "/"}, count)
	if !freshet.IsKind(err, freshet.KindUnavailable) || n != 1 || f.count("Check") != 2 {
		t.Errorf("%d reports, %d calls of the leader, %v", n, f.count("Check"), err)
	}
}
