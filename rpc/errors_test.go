package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

func TestEveryKindSurvivesTheWire(t *testing.T) {
	f := &fake{}
	s := start(t, f, nil, rpc.ServerOptions{})
	c := dial(t, rpc.DialOptions{NoRetry: true}, s.addr)
	for _, row := range freshet.Kinds()[1:] {
		f.fail(freshet.Errorf(row.Kind, "paint", "/wall", "no brush"))
		_, err := c.Stat(t.Context(), "/a", freshet.ReadOptions{})
		if freshet.KindOf(err) != row.Kind {
			t.Errorf("%s arrived as %s", row.Name, freshet.KindOf(err))
		}
		if op, p := rpc.RemoteDetail(err); op != "paint" || p != "/wall" {
			t.Errorf("%s: op %q, path %q", row.Name, op, p)
		}
		if want := "paint /wall: no brush"; err == nil || err.Error() != want {
			t.Errorf("%s: text %q, want %q", row.Name, err, want)
		}
		if code := status.Code(rpc.StatusOf(f.err)); uint32(code) != row.GRPC {
			t.Errorf("%s: code %s, want %d", row.Name, code, row.GRPC)
		}
		again := rpc.ErrorOf(rpc.StatusOf(rpc.ErrorOf(rpc.StatusOf(f.err))))
		if freshet.KindOf(again) != row.Kind {
			t.Errorf("%s became %s on its second way", row.Name, freshet.KindOf(again))
		}
	}
}

func TestCodesWithoutDetailHaveAKind(t *testing.T) {
	for code, want := range map[codes.Code]freshet.Kind{
		codes.Canceled: freshet.KindDeadline, codes.DeadlineExceeded: freshet.KindDeadline, codes.Unknown: freshet.KindInternal,
		codes.OutOfRange: freshet.KindInvalid, codes.Unavailable: freshet.KindUnavailable, codes.Unimplemented: freshet.KindUnsupported,
		codes.ResourceExhausted: freshet.KindExhausted, codes.Aborted: freshet.KindStale, codes.DataLoss: freshet.KindCorrupt,
		codes.Code(99): freshet.KindInternal,
	} {
		if got := freshet.KindOf(rpc.ErrorOf(status.Error(code, "x"))); got != want {
			t.Errorf("%s: got %s, want %s", code, got, want)
		}
	}
}

func TestErrorsKeepTheirKindWhateverTheyWrap(t *testing.T) {
	below := status.Error(codes.NotFound, "from another call")
	for name, tc := range map[string]struct {
		err  error
		want freshet.Kind
	}{
		"nil":                     {nil, freshet.KindOK},
		"ours around a status":    {freshet.Errorf(freshet.KindConflict, "a", "", "%w", below), freshet.KindConflict},
		"text around ours":        {fmt.Errorf("more: %w", freshet.Errorf(freshet.KindExist, "a", "", "b")), freshet.KindExist},
		"a bare status":           {below, freshet.KindNotExist},
		"a bare deadline":         {context.DeadlineExceeded, freshet.KindDeadline},
		"a cancelled context":     {fmt.Errorf("x: %w", context.Canceled), freshet.KindDeadline},
		"a bare kind":             {freshet.KindCorrupt, freshet.KindCorrupt},
		"anything else":           {errors.New("boom"), freshet.KindInternal},
		"bytes that are not text": {freshet.Errorf(freshet.KindStale, "a", "/\xff", "\xfe"), freshet.KindStale},
	} {
		if got := freshet.KindOf(rpc.ErrorOf(rpc.StatusOf(tc.err))); got != tc.want {
			t.Errorf("%s: got %s, want %s", name, got, tc.want)
		}
	}
}

func TestAPanicIsTheErrorOfOneCall(t *testing.T) {
	var log bytes.Buffer
	f := &fake{panic: "the secret is 42"}
	s := start(t, f, nil, rpc.ServerOptions{Log: slog.New(slog.NewTextHandler(&log, nil))})
	c := dial(t, rpc.DialOptions{NoRetry: true}, s.addr)
	_, err := c.Stat(t.Context(), "/a", freshet.ReadOptions{})
	if !freshet.IsKind(err, freshet.KindInternal) || strings.Contains(err.Error(), "42") {
		t.Errorf("unary: %v", err)
	}
	err = c.Sync(t.Context(), "/a", false, func(freshet.SyncProgress) error { return nil })
	if !freshet.IsKind(err, freshet.KindInternal) || strings.Contains(err.Error(), "42") {
		t.Errorf("stream: %v", err)
	}
	f.mu.Lock()
	f.panic = nil
	f.mu.Unlock()
	if _, err := c.Stat(t.Context(), "/a", freshet.ReadOptions{}); err != nil {
		t.Errorf("the server did not go on: %v", err)
	}
	s.stop()
	if text := log.String(); strings.Count(text, "panic in a call") != 2 || !strings.Contains(text, "the secret is 42") {
		t.Errorf("log: %s", text)
	}
}

func TestRetries(t *testing.T) {
	for _, tc := range []struct {
		method string
		opts   rpc.DialOptions
		want   int
	}{
		{"Stat", rpc.DialOptions{}, 5},
		{"Mkdir", rpc.DialOptions{}, 5},
		{"SetPolicy", rpc.DialOptions{}, 5},
		{"ChangePolicy", rpc.DialOptions{}, 5},
		{"SetQuota", rpc.DialOptions{}, 5},
		{"BumpEpoch", rpc.DialOptions{}, 5},
		{"TransferLeadership", rpc.DialOptions{}, 1}, // it may have worked
		{"Heartbeat", rpc.DialOptions{}, 1},          // the node repeats it
		{"Stat", rpc.DialOptions{NoRetry: true}, 1},
	} {
		f := &fake{err: freshet.Errorf(freshet.KindUnavailable, "test", "", "later")}
		s := start(t, f, nil, rpc.ServerOptions{})
		c := dial(t, tc.opts, s.addr)
		if _, _, err := invoke(t.Context(), c, tc.method, 1); !freshet.IsKind(err, freshet.KindUnavailable) {
			t.Errorf("%s: got %v", tc.method, err)
		}
		if got := f.count(tc.method); got != tc.want {
			t.Errorf("%s with %+v: asked %d times, want %d", tc.method, tc.opts, got, tc.want)
		}
		s.stop()
	}
	f := &fake{err: freshet.Errorf(freshet.KindConflict, "test", "", "no")}
	s := start(t, f, nil, rpc.ServerOptions{})
	c := dial(t, rpc.DialOptions{}, s.addr)
	if _, _, err := invoke(t.Context(), c, "Stat", 1); !freshet.IsKind(err, freshet.KindConflict) || f.count("Stat") != 1 {
		t.Errorf("a refusal was repeated: %v, asked %d times", err, f.count("Stat"))
	}
}
