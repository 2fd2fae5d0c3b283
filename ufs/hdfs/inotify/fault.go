package inotify

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/freshet-io/freshet"
	hadoopv1 "github.com/freshet-io/freshet/proto/hadoop/v1"
)

// op is the operation in all errors of this package.
const op = "watch hdfs"

// remoteError is an exception that a NameNode answered with.
type remoteError struct {
	class   string
	message string // first line; the rest is a Java stack
	fatal   bool   // the NameNode closes the connection
}

func (e *remoteError) Error() string {
	class := e.class[strings.LastIndexByte(e.class, '.')+1:]
	if class == "" {
		class = "unnamed exception"
	}
	if e.message == "" {
		return class
	}
	return class + ": " + e.message
}

func newRemoteError(h *hadoopv1.RpcResponseHeader) *remoteError {
	line, _, _ := strings.Cut(h.GetMessage(), "\n")
	if len(line) > 500 {
		line = strings.ToValidUTF8(line[:500], "") + "…"
	}
	return &remoteError{class: h.GetException(), message: strings.TrimSpace(line), fatal: h.GetStatus() != 1}
}

// is reports whether the exception is of one of the Java classes, named without
// their packages.
func (e *remoteError) is(classes ...string) bool {
	for _, c := range classes {
		if e.class == c || strings.HasSuffix(e.class, "."+c) {
			return true
		}
	}
	return false
}

// standby reports whether another NameNode is to be asked.
func standby(err error) bool {
	e, ok := errors.AsType[*remoteError](err)
	return ok && e.is("StandbyException", "ObserverRetryOnActiveException")
}

// unknownMethod reports whether the NameNode doesn't have what was called.
func unknownMethod(err error) bool {
	e, ok := errors.AsType[*remoteError](err)
	return ok && e.is("RpcNoSuchMethodException", "RpcNoSuchProtocolException")
}

// fault gives err its Kind and, where somebody has to do something, says what.
func (s *Source) fault(err error) error {
	if own, ok := errors.AsType[*freshet.Error](err); ok {
		return own
	}
	e, ok := errors.AsType[*remoteError](err)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &freshet.Error{Op: op, Kind: freshet.KindUnavailable, Err: err}
	case errors.Is(err, errFrame):
		return &freshet.Error{Op: op, Kind: freshet.KindCorrupt, Err: err}
	case !ok:
		return &freshet.Error{Op: op, Kind: freshet.KindUnavailable, Err: err}
	case strings.Contains(e.message, "SIMPLE authentication is not enabled"):
		return freshet.Errorf(freshet.KindUnsupported, op, "",
			"the cluster wants Kerberos, which active sync of HDFS does not speak; leave it off for this mount, whose sync interval then applies (%w)", err)
	case e.is("AccessControlException", "AuthorizationException"):
		return freshet.Errorf(freshet.KindPermission, op, "",
			"only the HDFS superuser may follow the changes, and %q is none: mount as the user that runs the NameNode or as a member of dfs.permissions.superusergroup, or leave active sync off for this mount, whose sync interval then applies (%w)", s.opts.User, err)
	case unknownMethod(err), e.is("RpcServerException", "UnsupportedOperationException"):
		return freshet.Errorf(freshet.KindUnsupported, op, "",
			"active sync needs a NameNode of Hadoop 2.7 or later at %s; leave it off for this mount (%w)", strings.Join(s.opts.Addrs, ", "), err)
	case standby(err):
		return freshet.Errorf(freshet.KindUnavailable, op, "", "no NameNode of %s is active: %w", strings.Join(s.opts.Addrs, ", "), err)
	}
	return &freshet.Error{Op: op, Kind: freshet.KindUnavailable, Err: fmt.Errorf("NameNode answered %w", err)}
}

// passing reports whether to try again soon may help.
func (s *Source) passing(err error) bool {
	return freshet.IsKind(s.fault(err), freshet.KindUnavailable)
}
