package rpc

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// leaderHint is what an error of kind not_leader may carry: the client address
// of the member that leads.
type leaderHint interface{ LeaderAddress() string }

// StatusOf translates err for the wire: the gRPC code by the table of kinds, and
// kind, operation and path in the details. A nil error stays nil.
func StatusOf(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*freshet.Error](err); !ok {
		if _, ok := status.FromError(err); ok {
			return err // of the gRPC library, or one that is passed on
		}
	}
	kind := kindOf(err)
	// A status with bytes that are not UTF-8 would arrive without its details.
	detail := &freshetv1.ErrorDetail{Kind: kind.String()}
	if op, p := RemoteDetail(err); op != "" || p != "" {
		detail.Op, detail.Path = strings.ToValidUTF8(op, "\ufffd"), strings.ToValidUTF8(string(p), "\ufffd")
	}
	var hint leaderHint
	if errors.As(err, &hint) {
		detail.Leader = hint.LeaderAddress()
	}
	st := status.New(codes.Code(kind.Info().GRPC), strings.ToValidUTF8(err.Error(), "\ufffd"))
	if with, derr := st.WithDetails(detail); derr == nil {
		st = with
	}
	return st.Err()
}

func kindOf(err error) freshet.Kind {
	var e *freshet.Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return freshet.KindDeadline
	}
	return freshet.KindOf(err)
}

// ErrorOf translates an error that came over the wire back into a
// *freshet.Error; nil and what is one already stay as they are.
func ErrorOf(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*freshet.Error](err); ok {
		return err
	}
	// Not status.FromError, which keeps what the gRPC library wraps around the
	// other process's words, such as how often it repeated the call.
	var of interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &of) {
		return &freshet.Error{Kind: kindOf(err), Err: err}
	}
	st := of.GRPCStatus()
	out := &remoteError{kind: kindOfCode(st.Code()), message: st.Message()}
	for _, d := range st.Details() {
		detail, ok := d.(*freshetv1.ErrorDetail)
		if !ok {
			continue
		}
		if k, known := freshet.ParseKind(detail.GetKind()); known {
			out.kind = k
		}
		out.op, out.path, out.leader = detail.GetOp(), freshet.Path(detail.GetPath()), detail.GetLeader()
	}
	return &freshet.Error{Kind: out.kind, Err: out}
}

// remoteError is an error of another process. Its text is complete already, so
// the operation and path are kept aside.
type remoteError struct {
	kind    freshet.Kind
	op      string
	path    freshet.Path
	leader  string
	message string
}

func (e *remoteError) Error() string         { return e.message }
func (e *remoteError) LeaderAddress() string { return e.leader }

// RemoteDetail returns the operation and the path that an error names: those of
// this process, or, where it names none, of the other process that it came from.
func RemoteDetail(err error) (op string, p freshet.Path) {
	var own *freshet.Error
	if errors.As(err, &own) && (own.Op != "" || own.Path != "") {
		return own.Op, own.Path
	}
	if e, ok := errors.AsType[*remoteError](err); ok {
		return e.op, e.path
	}
	return "", ""
}

// kindOfCode is for errors that carry no detail: those of the gRPC library and
// of proxies.
func kindOfCode(c codes.Code) freshet.Kind {
	switch c {
	case codes.OK:
		return freshet.KindOK
	case codes.Canceled:
		return freshet.KindDeadline
	case codes.OutOfRange:
		return freshet.KindInvalid
	case codes.Unavailable:
		return freshet.KindUnavailable // not_leader has the same code
	}
	for _, row := range freshet.Kinds() {
		if codes.Code(row.GRPC) == c {
			return row.Kind
		}
	}
	return freshet.KindInternal
}
