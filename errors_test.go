package freshet_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/freshet-io/freshet"
)

func TestKindTable(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for i, row := range freshet.Kinds() {
		if int(row.Kind) != i {
			t.Errorf("row %d is of kind %d: the numbers cross the wire", i, row.Kind)
		}
		if names[row.Name] || row.Name == "" {
			t.Errorf("name %q", row.Name)
		}
		names[row.Name] = true
		if back, ok := freshet.ParseKind(row.Name); !ok || back != row.Kind || row.Kind.String() != row.Name || row.Kind.Error() != row.Name {
			t.Errorf("%q is read as %v", row.Name, back)
		}
		if row.GRPC > uint32(codes.Unauthenticated) || http.StatusText(row.HTTP) == "" {
			t.Errorf("%s: gRPC code %d, HTTP status %d", row.Name, row.GRPC, row.HTTP)
		}
		if ok := row.Kind == freshet.KindOK; (row.GRPC == 0) != ok || (row.HTTP == 200) != ok || (row.Exit == 0) != ok || (row.S3 == "") != ok {
			t.Errorf("%s looks like a success on some face: %+v", row.Name, row)
		}
	}
	if k := freshet.Kind(200); k.String() != "internal" || k.Info().Kind != freshet.KindInternal {
		t.Errorf("an unknown kind is %v", k)
	}
	if _, ok := freshet.ParseKind("nonsense"); ok {
		t.Error("nonsense is a kind")
	}
	// Written down once more, since clients depend on them.
	want := []string{"ok", "invalid", "not_exist", "exist", "permission", "unauthenticated", "stale", "conflict", "not_leader", "unavailable", "deadline", "unsupported", "exhausted", "corrupt", "internal"}
	for i, name := range want {
		if freshet.Kind(i).String() != name {
			t.Errorf("kind %d is %q, was %q", i, freshet.Kind(i), name)
		}
	}
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	cause := errors.New("disk on fire")
	inner := &freshet.Error{Op: "stat", Path: "/a", Kind: freshet.KindUnavailable, Err: cause}
	for _, tc := range []struct {
		err  error
		want string
	}{
		{&freshet.Error{Op: "mount add", Path: "/a", Kind: freshet.KindExist}, "mount add /a: exist"},
		{&freshet.Error{Kind: freshet.KindExist}, "exist"},
		{&freshet.Error{Path: "/a", Err: cause}, "/a: disk on fire"},
		{inner, "stat /a: disk on fire"},
		{freshet.Wrap("load", "/a", inner), "load /a: stat: disk on fire"},
		{freshet.Wrap("stat", "/a", inner), "stat /a: disk on fire"},
		{freshet.Wrap("stat", "/b", inner), "stat /b: /a: disk on fire"},
		{freshet.Wrap("load", "/b", inner), "load /b: stat /a: disk on fire"},
		{freshet.Errorf(freshet.KindInvalid, "parse", "", "bad %d", 5), "parse: bad 5"},
	} {
		if got := tc.err.Error(); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

func TestKindOf(t *testing.T) {
	t.Parallel()
	stale := freshet.Errorf(freshet.KindStale, "open", "/a", "%w", io.ErrUnexpectedEOF)
	rewrapped := &freshet.Error{Op: "read", Kind: freshet.KindUnavailable, Err: stale}
	for _, tc := range []struct {
		err  error
		want freshet.Kind
	}{
		{nil, freshet.KindOK},
		{io.EOF, freshet.KindInternal},
		{stale, freshet.KindStale},
		{fmt.Errorf("x: %w", stale), freshet.KindStale},
		{freshet.Wrap("up", "", stale), freshet.KindStale},
		{rewrapped, freshet.KindUnavailable},
		{freshet.KindExhausted, freshet.KindExhausted},
		{fmt.Errorf("x: %w", freshet.KindConflict), freshet.KindConflict},
		{errors.Join(io.EOF, stale), freshet.KindStale},
		{freshet.Wrap("up", "", io.EOF), freshet.KindInternal},
	} {
		if got := freshet.KindOf(tc.err); got != tc.want {
			t.Errorf("%v: %v, want %v", tc.err, got, tc.want)
		}
		if !freshet.IsKind(tc.err, freshet.KindCorrupt, tc.want) || freshet.IsKind(tc.err, freshet.KindCorrupt) || freshet.IsKind(tc.err) {
			t.Errorf("%v: IsKind is wrong", tc.err)
		}
	}
	if !errors.Is(stale, freshet.KindStale) || errors.Is(stale, freshet.KindExist) || !errors.Is(stale, io.ErrUnexpectedEOF) {
		t.Error("errors.Is does not see kind and cause")
	}
	if freshet.Wrap("op", "/a", nil) != nil {
		t.Error("wrapping nil makes an error")
	}
}
