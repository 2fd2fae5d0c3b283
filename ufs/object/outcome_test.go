package object_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/object"
)

func TestOutcome(t *testing.T) {
	unknown := object.Errorf(freshet.KindDeadline, "no answer")
	refused := object.Errorf(freshet.KindPermission, "refused")
	unsent := object.Errorf(freshet.KindUnavailable, "dial: %w", ufs.ErrNotSent)
	late := object.Errorf(freshet.KindDeadline, "late: %w", ufs.ErrNotSent)
	for _, c := range []struct {
		all     []error
		kind    freshet.Kind
		notSent bool
	}{
		{[]error{nil, nil}, 0, false},
		{[]error{unsent, late}, freshet.KindUnavailable, true},
		{[]error{nil, unsent}, freshet.KindUnavailable, false},
		{[]error{late, unknown}, freshet.KindDeadline, false},
		{[]error{unsent, unknown}, freshet.KindDeadline, false},
		{[]error{refused, unknown, nil}, freshet.KindDeadline, false},
		{[]error{refused, unsent}, freshet.KindPermission, false},
		{[]error{unsent, refused}, freshet.KindUnavailable, false},
	} {
		err := object.Outcome(c.all...)
		if c.kind == 0 {
			if err != nil {
				t.Errorf("%v: got %v", c.all, err)
			}
			continue
		}
		if freshet.KindOf(err) != c.kind || errors.Is(err, ufs.ErrNotSent) != c.notSent {
			t.Errorf("%v: got %v, not sent %v", c.all, err, errors.Is(err, ufs.ErrNotSent))
		}
	}
}

// A copy that is under way when another one is refused may still land: the move
// must not say that it is over before that copy is, nor that its outcome is known.
func TestRefusedCopyLeavesNoOtherUnderWay(t *testing.T) {
	s := newFlat()
	fs := object.New(s, object.Options{})
	for i := range 4 {
		put(t, s, fmt.Sprintf("a/%d", i))
	}
	refused, ended := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.fail = func(call, name string) error {
		if call != "copy" {
			return nil
		}
		if name == "a/0" {
			<-refused
			defer close(ended)
			return object.Errorf(freshet.KindDeadline, "no answer")
		}
		once.Do(func() { close(refused) })
		return object.Errorf(freshet.KindStale, "refused")
	}
	_, err := fs.Rename(t.Context(), "a", "b")
	select {
	case <-ended:
	default:
		t.Error("the move ended before a copy did")
	}
	if !freshet.IsKind(err, freshet.KindDeadline) {
		t.Errorf("got %v, want an unknown outcome", err)
	}
}
