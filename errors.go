package freshet

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Kind classifies an error. Code decides on the Kind alone, never on the text.
// The numbers cross the wire and are never reused. A Kind is itself an error, so
// that errors.Is(err, freshet.KindNotExist) asks for the class of err.
type Kind uint8

// The kinds of error. KindOK is the absence of one.
const (
	KindOK              Kind = iota
	KindInvalid              // the request can never succeed as it is
	KindNotExist             // the path, mount, policy, node or operation does not exist
	KindExist                // it exists already
	KindPermission           // the caller, or Freshet at the storage, may not do it
	KindUnauthenticated      // the caller did not say, or prove, who it is
	KindStale                // the storage now holds another version than the one asked for
	KindConflict             // the state forbids it: not empty, is a directory, is a mount point, check-index
	KindNotLeader            // only the leader can answer; ask it
	KindUnavailable          // a part is down or overloaded: try again later
	KindDeadline             // the time was up; the outcome of a change is unknown
	KindUnsupported          // this storage or this version of Freshet can't do it
	KindExhausted            // a limit or a quota is used up
	KindCorrupt              // stored or received bytes are not what was written
	KindInternal             // a defect in Freshet
)

// Exit codes of the command line.
const (
	ExitOK          = 0
	ExitError       = 1
	ExitUsage       = 2
	ExitNotFound    = 3
	ExitConflict    = 4
	ExitUnavailable = 5
	ExitDenied      = 6
	ExitUnhealthy   = 7
	ExitPartly      = 8
)

// KindInfo is one row of the table that ties a Kind to the codes of each face.
type KindInfo struct {
	Kind Kind
	Name string // in JSON and logs
	GRPC uint32 // google.golang.org/grpc/codes.Code
	HTTP int
	S3   string // error code of the S3 API
	Exit int    // exit code of the command line
}

// Kinds returns the table of all kinds, in the order of their numbers. Every
// translation of a Kind, in both directions, is made from it.
func Kinds() []KindInfo {
	return []KindInfo{
		{KindOK, "ok", 0, 200, "", ExitOK},
		{KindInvalid, "invalid", 3, 400, "InvalidRequest", ExitUsage},
		{KindNotExist, "not_exist", 5, 404, "NoSuchKey", ExitNotFound},
		{KindExist, "exist", 6, 409, "BucketAlreadyExists", ExitConflict},
		{KindPermission, "permission", 7, 403, "AccessDenied", ExitDenied},
		{KindUnauthenticated, "unauthenticated", 16, 401, "InvalidAccessKeyId", ExitDenied},
		{KindStale, "stale", 10, 412, "PreconditionFailed", ExitConflict},
		{KindConflict, "conflict", 9, 412, "PreconditionFailed", ExitConflict},
		{KindNotLeader, "not_leader", 14, 503, "SlowDown", ExitUnavailable},
		{KindUnavailable, "unavailable", 14, 503, "ServiceUnavailable", ExitUnavailable},
		{KindDeadline, "deadline", 4, 504, "RequestTimeout", ExitUnavailable},
		{KindUnsupported, "unsupported", 12, 501, "NotImplemented", ExitError},
		{KindExhausted, "exhausted", 8, 429, "SlowDown", ExitUnavailable},
		{KindCorrupt, "corrupt", 15, 500, "InternalError", ExitError},
		{KindInternal, "internal", 13, 500, "InternalError", ExitError},
	}
}

// Info returns the row of k; an unknown Kind is internal.
func (k Kind) Info() KindInfo {
	if all := Kinds(); int(k) < len(all) {
		return all[k]
	}
	return KindInternal.Info()
}

// String returns the name of k as it stands in JSON and logs.
func (k Kind) String() string { return k.Info().Name }

// Error makes a Kind usable as a target of errors.Is.
func (k Kind) Error() string { return k.String() }

// ParseKind returns the Kind of that name.
func ParseKind(name string) (Kind, bool) {
	for _, row := range Kinds() {
		if row.Name == name {
			return row.Kind, true
		}
	}
	return KindInternal, false
}

// Error is what every package returns at its border: what was being done, to
// which path, of which kind the failure is, and what caused it. Op is a constant
// such as "mount add"; Path may be empty.
type Error struct {
	Op   string
	Path Path
	Kind Kind
	Err  error
}

// Error returns "op path: cause". Where the cause is an *Error about the same
// path or of the same op, the repeated part is left out.
func (e *Error) Error() string {
	var parts []string
	head := strings.TrimSpace(e.Op + " " + string(e.Path))
	if head != "" {
		parts = append(parts, head)
	}
	switch {
	case e.Err == nil:
		parts = append(parts, e.Kind.String())
	default:
		inner := *e
		if sub, ok := e.Err.(*Error); ok { //nolint:errorlint // only a direct child repeats the path
			inner = *sub
			if inner.Path == e.Path {
				inner.Path = ""
			}
			if inner.Op == e.Op {
				inner.Op = ""
			}
			parts = append(parts, inner.Error())
			break
		}
		parts = append(parts, e.Err.Error())
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is the Kind of e. A cause's own Kind does not count:
// the outermost Error decides.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind) //nolint:errorlint // a Kind is compared, not searched
	return ok && k == e.Kind
}

// KindOf returns the Kind of the outermost *Error or Kind in err's chain,
// KindOK for nil and KindInternal for an error that carries none.
func KindOf(err error) Kind {
	if err == nil {
		return KindOK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if k, ok := errors.AsType[Kind](err); ok {
		return k
	}
	return KindInternal
}

// IsKind reports whether KindOf(err) is one of kinds.
func IsKind(err error, kinds ...Kind) bool {
	return slices.Contains(kinds, KindOf(err))
}

// Errorf makes an *Error of kind k whose cause is made from format as by
// fmt.Errorf; %w keeps the chain.
func Errorf(k Kind, op string, p Path, format string, args ...any) error {
	return &Error{Op: op, Path: p, Kind: k, Err: fmt.Errorf(format, args...)}
}

// Wrap adds the operation and the path to err and keeps its Kind; nil stays nil.
func Wrap(op string, p Path, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Path: p, Kind: KindOf(err), Err: err}
}
